"""Settings of a run, group by group, as `configs/` has them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Where the prepared data are, how crops are drawn from them, and what is done to them.

    `placement` says who holds the training crops (`placement.fits_on_device`); `device_mib` bounds
    what `auto` puts on the device.
    """

    root: str | None
    crop_size: int
    crops_per_image: int
    margin: tuple[float, float, float, float]
    flips: bool
    num_workers: int
    fresh_crops: bool = False
    intensity: float = 0.0
    placement: str = "auto"
    device_mib: int = 0


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """Architecture; `compute_dtype` is `float32` or `bfloat16`."""

    encoder: str
    compute_dtype: str
    head: Literal["paper", "reference"]
    slope: float


@dataclasses.dataclass(frozen=True)
class InitSettings:
    """Where the first weights come from."""

    kind: Literal["random", "imagenet", "isl"]
    checkpoint: str | None
    weights: str | None


@dataclasses.dataclass(frozen=True)
class TargetSettings:
    """Scale of the distance map, and the map units that an output of 1 stands for."""

    distance_scale: Literal["normalised", "pixels"]
    distance_unit: float


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Alpha of eq. (2): a number or `auto`, then averaged over `alpha_batches`."""

    alpha: str
    alpha_batches: int


@dataclasses.dataclass(frozen=True)
class InstanceSettings:
    """Marker contrast h in map units, or `auto`: calibrated on the training images."""

    h: str


@dataclasses.dataclass(frozen=True)
class ScheduleSettings:
    """Length, pace and optimiser of a training; see `OptimizerSettings` and `TrainSettings`.

    `num_epochs`, if more than 0, makes the length depend on the number of crops; `num_steps` is
    then 0.
    """

    batch_size: int
    num_steps: int
    learning_rate: float
    schedule: str
    warmup_steps: int
    b1: float
    b2: float
    clip_norm: float
    head_rate: float
    checkpoint_every: int
    validate_every: int
    log_every: int
    keep: str
    num_epochs: float = 0.0
    rates: str = ""
    patience: int = 0
    patience_from: int = 0
    checkpoint_minutes: float = 0.0
    steps_per_call: int = 1


GROUPS: dict[str, type] = {
    "data": DataSettings,
    "model": ModelSettings,
    "init": InitSettings,
    "target": TargetSettings,
    "loss": LossSettings,
    "instances": InstanceSettings,
    "train": ScheduleSettings,
}


def with_num_steps(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a budget into steps: `num_steps` if given, else `num_epochs`, else `num_samples`."""
    values = dict(schedule)
    num_samples = values.pop("num_samples", None)
    if values["num_steps"]:
        values["num_epochs"] = 0.0
    elif values.get("num_epochs"):
        values["num_steps"] = 0
    elif num_samples:
        per_call = values["batch_size"] * values.get("steps_per_call", 1)
        values["num_steps"] = math.ceil(num_samples / per_call) * values.get("steps_per_call", 1)
    else:
        raise ValueError("the length is not set: give train.num_samples, num_epochs or num_steps")
    return values


def parse_profile(text: str) -> tuple[int, int] | None:
    """`100:110`, two steps, as numbers; None for nothing."""
    if not text:
        return None
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and 0 < int(first) <= int(last)):
        raise ValueError(f"profile={text!r}: want FIRST:LAST, two steps, as 100:110")
    return int(first), int(last)
