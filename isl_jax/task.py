"""What a network learns: the one place that spells the tasks, their maps, units and scores.

| kind                    | outputs                 | loss     | score | trained in (section)      |
|-------------------------|-------------------------|----------|-------|---------------------------|
| `stain`                 | stain, 0..1 of its scale| L1       | PCC   | pretext (2.2)             |
| `semantic`              | logit                   | soft IoU | IoU   | nucleus segmentation (2.3)|
| `distance_and_semantic` | distance / unit, logit  | eq. (2)  | mAP   | cell segmentation (2.3)   |
"""

import dataclasses
from enum import StrEnum
from typing import Literal

DistanceScale = Literal["normalised", "pixels"]
DistancePeaks = Literal["single", "all"]
Activation = Literal["sigmoid", "shifted_sigmoid"]
Metric = Literal["pcc", "iou", "map"]
# Which crops hold enough signal to be kept (`data.crops.valid_positions`).
CropRule = Literal["stain_signal", "foreground", "any_label", "any"]

STUDIES = ("nucleus", "cell")
DISTANCE_SCALES: tuple[DistanceScale, ...] = ("normalised", "pixels")
# One peak a cell (`data.peaks`), or all that the distance has.
DISTANCE_PEAKS: tuple[DistancePeaks, ...] = ("single", "all")
# Each cell's maximum in a normalised distance map, in map units.
NORMALISED_PEAK = 255.0


class Kind(StrEnum):
    """The kinds of tasks; their values are the words of model folders and configurations."""

    STAIN = "stain"
    SEMANTIC = "semantic"
    INSTANCES = "distance_and_semantic"


@dataclasses.dataclass(frozen=True)
class Task:
    """What one stage learns, and what its network's outputs mean.

    `activation` turns a semantic logit into a probability: `sigmoid`, or `shifted_sigmoid`, eq.
    (1), with `slope`, for networks that were pretrained on a stain. `distance_scale` and
    `distance_peaks` are those of the distance map; an output of 1 stands for `distance_unit` of its
    map units. Raises ValueError for a word that is none of these.
    """

    kind: Kind
    activation: Activation = "sigmoid"
    slope: float = 1.0
    distance_scale: DistanceScale = "normalised"
    distance_unit: float = NORMALISED_PEAK
    distance_peaks: DistancePeaks = "single"

    def __post_init__(self) -> None:
        if self.kind not in tuple(Kind):
            raise ValueError(f"unknown target {self.kind!r}: choose one of {', '.join(Kind)}")
        object.__setattr__(self, "kind", Kind(self.kind))
        if self.activation not in ("sigmoid", "shifted_sigmoid"):
            raise ValueError(
                f"unknown activation {self.activation!r}: choose sigmoid or shifted_sigmoid"
            )
        if self.distance_scale not in DISTANCE_SCALES:
            raise ValueError(
                f"target.distance_scale={self.distance_scale!r}: choose one of "
                f"{', '.join(DISTANCE_SCALES)}"
            )
        if self.distance_peaks not in DISTANCE_PEAKS:
            raise ValueError(
                f"target.distance_peaks={self.distance_peaks!r}: choose one of "
                f"{', '.join(DISTANCE_PEAKS)}"
            )
        if not 0 < self.distance_unit < float("inf"):
            raise ValueError(f"target.distance_unit={self.distance_unit}: choose more than 0")

    @property
    def is_stain(self) -> bool:
        """Whether the stain is learnt: the pretext task."""
        return self.kind == Kind.STAIN

    @property
    def has_distance(self) -> bool:
        """Whether a distance map is learnt, and with it instances."""
        return self.kind == Kind.INSTANCES

    @property
    def map_names(self) -> tuple[str, ...]:
        """Names of the maps that the outputs stand for, in order: fields of a `Prediction`."""
        return {
            Kind.STAIN: ("stain",),
            Kind.SEMANTIC: ("probability",),
            Kind.INSTANCES: ("distance", "probability"),
        }[self.kind]

    @property
    def num_outputs(self) -> int:
        """Channels that the network predicts."""
        return len(self.map_names)

    @property
    def metric(self) -> Metric:
        """The score that the task is judged by (section 3.1)."""
        return METRICS[self.kind]

    @property
    def centre(self) -> float:
        """Logit of probability 0.5; the probability is `sigmoid(slope · (logit − centre))`."""
        return 0.5 if self.activation == "shifted_sigmoid" else 0.0

    def crop_rule(self, study: str) -> CropRule:
        """Which crops are kept, in training and in scoring alike (section 2)."""
        return crop_rule(self.kind, study)


METRICS: dict[Kind, Metric] = {Kind.STAIN: "pcc", Kind.SEMANTIC: "iou", Kind.INSTANCES: "map"}


def kind_of_study(study: str) -> Kind:
    """What the segmentation of a study learns."""
    return Kind.INSTANCES if study == "cell" else Kind.SEMANTIC


def kind_of_metric(metric: Metric) -> Kind:
    """What is judged by a score."""
    return next(kind for kind, one in METRICS.items() if one == metric)


def crop_rule(kind: Kind, study: str) -> CropRule:
    """Which crops are kept for what is learnt.

    A stain of the nucleus study: at least one nucleus; of the cell study: any crop, since a stain
    of whole cells may cover the image and leave no background to rise above. Semantic: enough
    foreground. Instances: not all background.
    """
    if kind == Kind.STAIN:
        return "stain_signal" if study == "nucleus" else "any"
    return "foreground" if kind == Kind.SEMANTIC else "any_label"
