"""What a run tells of itself: metrics, its pace, compilation, memory, pictures, a trace."""

import contextlib
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from isl_jax.models.heads import shifted_sigmoid
from isl_jax.task import Task
from isl_jax.training.losses import loss_parameters
from isl_jax.training.settings import RunSettings, TrainSettings
from isl_jax.training.writers import TRACKERS, JsonLines, Terminal, Writer

# Crops of the first validation batch that are shown.
NUM_PICTURES = 4


class Pace:
    """Images per second of training, and the share of that time spent waiting for data.

    The clock stands still until `start` and after `pause`: compilation, validation and checkpoints
    are not training.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._steps, self._elapsed, self._waited = 0, 0.0, 0.0
        self._last = (0, 0.0, 0.0)
        self._started: float | None = None

    @property
    def is_paused(self) -> bool:
        """Whether the clock stands still."""
        return self._started is None

    def start(self) -> None:
        """Let the clock run."""
        self._started = time.perf_counter()

    def pause(self) -> None:
        """Stop the clock."""
        self._elapsed = self._now()
        self._started = None

    def count(self, waited: float) -> None:
        """Note a step that is dispatched, and seconds that the device waited for its data."""
        if not self.is_paused:
            self._steps += 1
            self._waited += waited

    def read(self) -> dict[str, float]:
        """images_per_second and data_wait (0..1) since the last reading."""
        now = (self._steps, self._now(), self._waited)
        steps, elapsed, waited = (new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        return self._rates(int(steps), elapsed, waited)

    def total(self) -> dict[str, float]:
        """The same over all training of this process."""
        return self._rates(self._steps, self._now(), self._waited)

    def _now(self) -> float:
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._elapsed + running

    def _rates(self, steps: int, elapsed: float, waited: float) -> dict[str, float]:
        if not steps or elapsed <= 0:
            return {}
        return {
            "images_per_second": steps * self._batch_size / elapsed,
            "data_wait": min(waited / elapsed, 1.0),
        }


class Profiler:
    """Traces the steps `first` to `last` of `steps` into `folder`, for XProf; without, nothing."""

    def __init__(self, folder: Path, steps: tuple[int, int] | None) -> None:
        self._folder, self._steps, self._is_running = folder, steps, False

    def starts(self, step: int) -> bool:
        """Whether the trace begins with `step`, the next one."""
        if self._steps is None or self._is_running:
            return False
        return self._steps[0] <= step <= self._steps[1]

    def ends(self, step: int) -> bool:
        """Whether the trace ends after `step`, the last one."""
        return self._steps is not None and self._is_running and step >= self._steps[1]

    def start(self) -> None:
        """Begin; the device should have nothing left to do."""
        jax.profiler.start_trace(str(self._folder))
        self._is_running = True

    def close(self) -> None:
        """End, if begun."""
        if self._is_running:
            jax.profiler.stop_trace()
            self._steps, self._is_running = None, False


class Progress:
    """Passes metrics to the writers, in the first process only; use as a context manager."""

    def __init__(
        self, workdir: Path, settings: TrainSettings, run: RunSettings, *, start_step: int
    ) -> None:
        self.pace = Pace(settings.batch_size)
        self.profiler = Profiler(workdir / "profile", run.profiled_steps)
        self._settings = settings
        self._compile_seconds = 0.0
        self._num_programs: dict[int, int] = {}
        self._writers: list[Writer] = []
        self._terminal: Terminal | None = None
        if jax.process_index() == 0:
            self._terminal = Terminal(
                start_step=start_step,
                num_steps=settings.num_steps,
                description=workdir.name,
            )
            self._writers = [JsonLines(workdir, start_step=start_step), self._terminal]
            self._writers += [
                TRACKERS[name](workdir, start_step=start_step) for name in run.writer_names
            ]

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.profiler.close()
        for writer in self._writers:
            writer.close()

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics of a training step."""
        if step % self._settings.log_every == 0 or step == self._settings.num_steps:
            self._write(step, "train", dict(values) | self.pace.read())
        if self._terminal:
            self._terminal.advance(step, values["loss"])

    def validation(self, step: int, loss: float, pictures: np.ndarray | None) -> None:
        """Loss of the validation set, with pictures of its first crops."""
        self._write(step, "validation", {"loss": loss})
        for writer in self._writers:
            if pictures is not None:
                writer.images(step, "validation", pictures)

    def note(self, text: str) -> None:
        """Tell the user something in words."""
        if self._terminal:
            self._terminal.note(text)

    @contextlib.contextmanager
    def compiling(self, step: Any) -> Iterator[None]:
        """Around each call of a jitted `step`: times its first, notices a later compilation."""
        started = time.perf_counter()
        yield
        num_programs, known = step._cache_size(), self._num_programs.get(id(step))
        if known is None:
            self._compile_seconds += time.perf_counter() - started
        elif num_programs > known:
            self.note(
                "the training step was compiled again, which costs as much as the first time: "
                "shapes or types of a batch have changed"
            )
        self._num_programs[id(step)] = num_programs

    def summary(self) -> dict[str, float]:
        """Pace, seconds of compilation and peak memory in bytes of this process so far."""
        compiled = {"compile_seconds": self._compile_seconds}
        return self.pace.total() | compiled | _peak_memory()

    def finish(self, step: int) -> None:
        """Write the summary as the last line."""
        self._write(step, "run", self.summary())

    def _write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        for writer in self._writers:
            writer.scalars(step, split, values)


def _peak_memory() -> dict[str, float]:
    peaks = {"peak_host_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0}
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        peaks["peak_device_memory"] = float(statistics["peak_bytes_in_use"])
    return peaks


def panel(batch: Mapping[str, np.ndarray], outputs: np.ndarray, task: Task) -> np.ndarray:
    """Rows of pictures, uint8 `[N, H, (1 + 2 K) · W, 1]`: first channel, targets, outputs.

    `outputs` `[B, H, W, K]` are the network's own. The input is scaled by its range, the rest is
    shown from 0 to 1; semantic outputs are shown as probabilities.
    """
    image = np.asarray(batch["image"][:NUM_PICTURES, ..., 0], np.float32)
    low, high = image.min((1, 2), keepdims=True), image.max((1, 2), keepdims=True)
    tiles = [(image - low) / np.maximum(high - low, 1e-6)]
    shown = np.array(outputs[: len(image)], np.float32)
    if not task.is_stain:
        parameters = loss_parameters(task)
        logits = jnp.asarray(shown[..., -1])
        shown[..., -1] = shifted_sigmoid(logits, parameters.slope, parameters.centre)
    for maps in (np.asarray(batch["target"][:NUM_PICTURES], np.float32), shown):
        tiles += list(np.moveaxis(maps, -1, 0))
    row = np.clip(np.nan_to_num(np.concatenate(tiles, axis=2)), 0, 1)
    return (row * 255).round().astype(np.uint8)[..., None]
