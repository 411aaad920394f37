"""What a run tells while it trains: a progress line, `metrics.jsonl`, and trackers.

A tracker, `Tracker(workdir, start_step=…)`, is for those who watch runs elsewhere; its package is
imported when it is asked for.
"""

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from isl_jax.files import explained, read_json, read_json_lines, write_json_lines, write_text


class Writer(Protocol):
    """Takes named values and pictures of a step; `split` is train, validation or run."""

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Record values of a step."""
        ...

    def images(self, step: int, split: str, images: np.ndarray) -> None:
        """Record uint8 pictures `[N, H, W, 1]`."""
        ...

    def close(self) -> None:
        """Finish: everything recorded is on its way."""
        ...


class JsonLines:
    """Appends one JSON object a line to `metrics.jsonl`.

    On resume from `start_step`, lines of later steps are dropped: the steps are about to be run
    again.
    """

    def __init__(self, workdir: Path, *, start_step: int) -> None:
        self._path = workdir / "metrics.jsonl"
        if self._path.exists():
            before = [
                line
                for line in read_json_lines(self._path, {"step": int})
                if line["step"] <= start_step
            ]
            write_json_lines(self._path, before)
        self._file = self._path.open("a", buffering=1)

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Write a line at once."""
        with explained(self._path):
            self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")

    def images(self, step: int, split: str, images: np.ndarray) -> None:
        """Pictures have no place here."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Terminal:
    """A line on stderr with the step, the loss, the pace and the time that is left."""

    def __init__(self, *, start_step: int, num_steps: int, description: str) -> None:
        self._pace = ""
        self._bar = tqdm(
            total=num_steps,
            initial=start_step,
            desc=description,
            unit="step",
            file=sys.stderr,
            # A log file gets a line now and then, a terminal a smooth bar.
            mininterval=0.5 if sys.stderr.isatty() else 15.0,
        )

    def advance(self, step: int, loss: float) -> None:
        """Move to `step`."""
        self._bar.set_postfix_str(f"loss {loss:.4f}{self._pace}", refresh=False)
        self._bar.update(step - self._bar.n)

    def note(self, text: str) -> None:
        """Print a line above."""
        self._bar.write(text, file=sys.stderr)

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Remember the pace."""
        if "images_per_second" in values:
            self._pace = (
                f", {values['images_per_second']:.1f} images/s, data wait {values['data_wait']:.0%}"
            )

    def images(self, step: int, split: str, images: np.ndarray) -> None:
        """Pictures have no place here."""

    def close(self) -> None:
        """Leave the line as it stands."""
        self._bar.close()


class TensorBoard:
    """Event files in `workdir/tensorboard/`."""

    def __init__(self, workdir: Path, *, start_step: int) -> None:
        from tensorboardX import SummaryWriter

        # Events of steps that are about to be run again are purged.
        self._writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step + 1)

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Write `split/name` curves."""
        for name, value in values.items():
            self._writer.add_scalar(f"{split}/{name}", value, step)

    def images(self, step: int, split: str, images: np.ndarray) -> None:
        """Write `split/0`, `split/1`, …"""
        for index, image in enumerate(images):
            self._writer.add_image(f"{split}/{index}", image, step, dataformats="HWC")

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of the project `isl-jax`, resumed under the same id (pip install 'isl-jax[wandb]')."""

    def __init__(self, workdir: Path, *, start_step: int) -> None:
        self._wandb = _optional("wandb")
        identity = workdir / "wandb_id.txt"
        if not identity.exists():
            write_text(identity, self._wandb.util.generate_id())
        self._run = self._wandb.init(
            project="isl-jax",
            name=workdir.name,
            id=identity.read_text(),
            dir=str(workdir),
            config=_config(workdir),
            resume="allow",
        )

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Log `split/name`."""
        self._run.log({f"{split}/{name}": value for name, value in values.items()}, step=step)

    def images(self, step: int, split: str, images: np.ndarray) -> None:
        """Log a row of pictures."""
        self._run.log({split: [self._wandb.Image(image[..., 0]) for image in images]}, step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class MLflow:
    """A run of MLflow, resumed under the same id (pip install 'isl-jax[mlflow]')."""

    def __init__(self, workdir: Path, *, start_step: int) -> None:
        self._mlflow = _optional("mlflow")
        identity = workdir / "mlflow_id.txt"
        known = identity.read_text() if identity.exists() else None
        run = self._mlflow.start_run(run_id=known, run_name=None if known else workdir.name)
        if known is None:
            write_text(identity, run.info.run_id)
            self._mlflow.log_dict(_config(workdir), "config.json")

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Log `split/name`."""
        named = {f"{split}/{name}": value for name, value in values.items()}
        self._mlflow.log_metrics(named, step=step)

    def images(self, step: int, split: str, images: np.ndarray) -> None:
        """Log pictures under their step."""
        for index, image in enumerate(images):
            self._mlflow.log_image(image[..., 0], f"{split}/{index}_step{step}.png")

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


TRACKERS: dict[str, Callable[..., Writer]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def _optional(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise ValueError(
            f"writers={package} needs a package that is not installed: "
            f"pip install 'isl-jax[{package}]'"
        ) from None


def _config(workdir: Path) -> dict[str, Any]:
    path = workdir / "config.json"
    return read_json(path, remedy="use another --workdir") if path.exists() else {}
