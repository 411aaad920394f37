"""Settings of one run: the keys of `configs/base.py`, a dataclass a group, and what they make."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from isl_jax.data.coverage import CHOICES, Choice
from isl_jax.data.crops import CropPlan, Margin
from isl_jax.models.heads import Head
from isl_jax.study.postprocessing import InstanceSettings
from isl_jax.task import (
    NORMALISED_PEAK,
    STUDIES,
    CropRule,
    DistancePeaks,
    DistanceScale,
    Kind,
    Task,
    kind_of_study,
)
from isl_jax.training.augmentation import Augmentation
from isl_jax.training.devices import PLACEMENTS
from isl_jax.training.losses import LossSettings
from isl_jax.training.settings import RunSettings, TrainSettings


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Where the prepared data are, how crops are drawn from them, and what is done to them.

    `placement` says who holds the training crops (`devices.fits_on_device`); `device_mib` bounds
    what `auto` puts on the device. `choose` says which fields are annotated; `choose_with`, a model
    by whose encoder fields are compared for `suggested` (None: by statistics of the images).
    """

    root: str
    crop_size: int
    crops_per_image: int
    margin: Margin
    flips: bool
    num_workers: int
    fresh_crops: bool = False
    intensity: float = 0.0
    placement: str = "auto"
    device_mib: int = 0
    choose: Choice = "random"
    choose_with: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "margin", tuple(self.margin))  # JSON has lists
        _choose("data.placement", self.placement, PLACEMENTS)
        _choose("data.choose", self.choose, CHOICES)
        if not self.root:
            raise ValueError("data.root is not set: name the folder that isl-prepare wrote")
        if self.fresh_crops and self.placement == "device":
            raise ValueError(
                "data.fresh_crops: crops that change cannot lie on the device; leave "
                "data.placement at auto or host"
            )


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """Architecture; `compute_dtype`, of the training, is `float32` or `bfloat16`.

    `head` is what stands after the U-Net of a cell segmentation, whatever its first weights;
    `auto`, as in the paper: two convolutions after an ISL network, nothing after others.
    """

    encoder: str
    compute_dtype: str
    head: Literal["auto", "none", "paper", "reference"]
    slope: float

    def __post_init__(self) -> None:
        _choose("model.head", self.head, ("auto", "none", "paper", "reference"))
        _choose("model.compute_dtype", self.compute_dtype, ("float32", "bfloat16"))


@dataclasses.dataclass(frozen=True)
class InitSettings:
    """Where the first weights come from."""

    kind: Literal["random", "imagenet", "isl"]
    checkpoint: str | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        _choose("init.kind", self.kind, ("random", "imagenet", "isl"))
        if self.kind == "isl" and not self.checkpoint:
            raise ValueError(
                "init.kind=isl needs init.checkpoint: the workdir of a pretext run, what "
                "isl-export --format=pretrained wrote, https://…#sha256=… or hf:OWNER/NAME@REVISION"
            )


# Keys of `target`.
_TARGET = ("distance_scale", "distance_unit", "distance_peaks")
GROUPS: dict[str, type] = {
    "data": DataSettings,
    "model": ModelSettings,
    "init": InitSettings,
    "loss": LossSettings,
    "instances": InstanceSettings,
    "train": TrainSettings,
}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All settings of one run: the configuration of `configs/`, as a value.

    Raises ValueError for settings that no run could work with.
    """

    study: Literal["nucleus", "cell"]
    stage: Literal["pretrain", "segment"]
    seed: int
    num_annotated: int
    data: DataSettings
    model: ModelSettings
    init: InitSettings
    loss: LossSettings
    instances: InstanceSettings
    train: TrainSettings
    distance_scale: DistanceScale = "normalised"
    distance_unit: float = NORMALISED_PEAK
    distance_peaks: DistancePeaks = "single"
    profile: str = ""
    writers: str = ""

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "Experiment":
        """Build from nested mappings with the keys of `configs/base.py`; inverse of `to_json`."""
        values = dict(config)
        groups = {name: group(**values.pop(name)) for name, group in GROUPS.items()}
        return cls(**groups, **values.pop("target"), **values)

    def to_json(self) -> dict[str, Any]:
        """Nested dicts with the keys of `configs/base.py`: the content of `config.json`.

        The head is named, where it was `auto`.
        """
        values = dataclasses.asdict(self)
        values["model"]["head"] = self.head
        target = {name: values.pop(name) for name in _TARGET}
        return values | {"target": target}

    def __post_init__(self) -> None:
        _choose("study", self.study, STUDIES)
        _choose("stage", self.stage, ("pretrain", "segment"))
        if self.is_pretext and self.init.kind == "isl":
            raise ValueError("init.kind=isl is for the segment stage: pretrain makes those weights")
        # Both check what they are made of.
        _ = self.task, self.run_settings

    @property
    def is_pretext(self) -> bool:
        """Whether this run learns to predict the stain: the pretext task."""
        return self.stage == "pretrain"

    @property
    def task(self) -> Task:
        """What this run learns (the four trainings of sections 2.2 and 2.3)."""
        kind = Kind.STAIN if self.is_pretext else kind_of_study(self.study)
        is_shifted = kind == Kind.SEMANTIC and self.init.kind == "isl"
        return Task(
            kind,
            activation="shifted_sigmoid" if is_shifted else "sigmoid",
            slope=self.model.slope if is_shifted else 1.0,
            distance_scale=self.distance_scale,
            distance_unit=self.distance_unit,
            distance_peaks=self.distance_peaks,
        )

    @property
    def head(self) -> Head:
        """What stands after the U-Net: nothing but in a cell segmentation, there as set."""
        if not self.task.has_distance:
            return "none"
        if self.model.head == "auto":
            return "paper" if self.init.kind == "isl" else "none"
        return self.model.head

    @property
    def crop_rule(self) -> CropRule:
        """Which crops hold enough signal to be kept."""
        return self.task.crop_rule(self.study)

    @property
    def crop_plan(self) -> CropPlan:
        """How the crops of this run are drawn."""
        data = self.data
        return CropPlan(data.crop_size, data.crops_per_image, data.margin, self.seed)

    @property
    def run_settings(self) -> RunSettings:
        """What the training loop needs beside `train`."""
        return RunSettings(
            seed=self.seed,
            augmentation=Augmentation(self.data.flips, self.data.intensity),
            loss=self.loss,
            profile=self.profile,
            writers=self.writers,
        )


def _choose(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(allowed)}")
