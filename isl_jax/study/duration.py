"""How long the runs of a sweep will take, from how long others took."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from isl_jax.files import misfit, read_json
from isl_jax.study.records import read_metrics
from isl_jax.study.settings import Experiment
from isl_jax.study.workdir import CONFIG

# Seconds and steps of a finished run, in its folder.
TIMING = "timing.json"
_SPEED = {"images_per_second": float}
_TIMING = {"seconds": float, "steps": int}


def seconds_for(
    remaining: Sequence[tuple[Experiment, int]], folders: Iterable[Path]
) -> float | None:
    """Seconds that runs, each at some step, will take one after the other; None if nothing tells.

    From the crop pixels a second of the runs in `folders`, and what a run takes beside its steps.
    """
    speeds = speeds_of(folders)
    if not speeds:
        return None
    speed = median(speeds.values())
    overheads = [o for f, s in speeds.items() if (o := _overhead(f, s)) is not None]
    pixels = 0
    for experiment, step in remaining:
        train, size = experiment.train, experiment.data.crop_size
        if not train.num_steps:
            return None  # as long as a number of epochs, which the crops decide
        pixels += (train.num_steps - step) * train.batch_size * size**2
    return pixels / speed + median(overheads or [0.0]) * len(remaining)


def speeds_of(folders: Iterable[Path]) -> dict[Path, float]:
    """Crop pixels a second of the runs that have recorded their pace."""
    return {folder: speed for folder in folders if (speed := _pixels_per_second(folder))}


def _pixels_per_second(workdir: Path) -> float | None:
    """Median training speed of a run; None when it has recorded none."""
    lines = (line for line in read_metrics(workdir) if misfit(line, _SPEED) is None)
    speeds = [speed for line in lines if (speed := line["images_per_second"]) > 0]
    if not speeds or not (workdir / CONFIG).exists():
        return None
    return median(speeds) * _stored_config(workdir)["data"]["crop_size"] ** 2


def _overhead(workdir: Path, pixels_per_second: float) -> float | None:
    """Seconds that a run took beside its steps (compilation, calibration, evaluation)."""
    path = workdir / TIMING
    if not path.exists():
        return None
    timing, config = read_json(path, remedy="delete it", keys=_TIMING), _stored_config(workdir)
    pixels = timing["steps"] * config["train"]["batch_size"] * config["data"]["crop_size"] ** 2
    return max(0.0, timing["seconds"] - pixels / pixels_per_second)


def _stored_config(workdir: Path) -> dict[str, Any]:
    keys = {"train": {"batch_size": int}, "data": {"crop_size": int}}
    return read_json(workdir / CONFIG, remedy="use another --workdir", keys=keys)
