"""What a run tells of itself: metrics, its pace, compilation, memory."""

import contextlib
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from isl_jax.training.profiling import Profiler
from isl_jax.training.settings import TrainSettings
from isl_jax.training.trackers import TRACKERS
from isl_jax.training.writers import JsonLines, Terminal, Writer


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

    def count(self, steps: int, waited: float) -> None:
        """Note steps that are dispatched, and seconds that the device waited for their data."""
        if not self.is_paused:
            self._steps += steps
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


class Progress:
    """Passes metrics to the writers, in the first process only; use as a context manager."""

    def __init__(
        self, workdir: Path, settings: TrainSettings, *, start_step: int, description: str
    ) -> None:
        self.pace = Pace(settings.batch_size)
        self.profiler = Profiler(workdir / "profile", settings.profile)
        self._settings = settings
        self._compile_seconds = 0.0
        self._num_programs: dict[int, int] = {}
        self._step = start_step
        self._writers: list[Writer] = []
        self._terminal: Terminal | None = None
        if jax.process_index() == 0:
            self._terminal = Terminal(
                start_step=start_step,
                num_steps=settings.optimizer.num_steps,
                description=description,
            )
            self._writers = [JsonLines(workdir, start_step=start_step), self._terminal]
            self._writers += [
                TRACKERS[name](workdir, start_step=start_step) for name in settings.writers
            ]

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.profiler.close()
        for writer in self._writers:
            writer.close()

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics of a training step."""
        if step % self._settings.log_every == 0 or step == self._settings.optimizer.num_steps:
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
