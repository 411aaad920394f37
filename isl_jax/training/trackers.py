"""Writers for those who watch runs elsewhere: TensorBoard, Weights & Biases, MLflow.

Each is `Tracker(workdir, start_step=…)` with the methods of `writer.Writer`; its package is
imported when it is asked for.
"""

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.training.writers import Writer


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
            identity.write_text(self._wandb.util.generate_id())
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
            identity.write_text(run.info.run_id)
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


def check_trackers(names: tuple[str, ...]) -> None:
    """Raise ValueError for a name that is none of `TRACKERS`."""
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"writers: {name!r} is none of {', '.join(TRACKERS)}")


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
    return json.loads(path.read_text()) if path.exists() else {}
