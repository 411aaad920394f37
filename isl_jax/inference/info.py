"""What a model folder says about itself: `model.json`, its schema, what it refuses."""

import dataclasses
import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from isl_jax.data.normalisation import StainScale
from isl_jax.files import read_json, write_json
from isl_jax.task import NORMALISED_PEAK, Task

SCHEMA_VERSION = 1
CITATION = (
    "Bonte, Philbert, Coleno, Bertrand, Imbert, Walter: Learning with minimal effort: leveraging "
    "in silico labeling for cell and nucleus segmentation, arXiv 2301.03914 (2023)"
)
UNLICENSED = "not stated: ask whoever trained the model, and mind the licence of its training data"


@dataclasses.dataclass(frozen=True)
class NetworkInfo:
    """Architecture: what `build_network` needs to make it again."""

    encoder: str
    head: Literal["none", "paper", "reference"]
    out_channels: int
    in_channels: int


@dataclasses.dataclass(frozen=True)
class PostProcessing:
    """From maps to labels (options of `label_instances`).

    `h` is the contrast of a marker, in map units; None until it is calibrated or given, and for
    models without a distance map. `threshold` is the foreground probability above which a pixel
    belongs to an object; `min_size` drops objects of fewer pixels.
    """

    h: float | None = None
    threshold: float = 0.5
    min_size: int = 0
    fill_holes: bool = False
    keep_unmarked: bool = False

    def __post_init__(self) -> None:
        if self.h is not None and not 0 <= self.h < float("inf"):
            raise ValueError(f"marker contrast h is {self.h}; expected a finite number ≥ 0")
        if not 0 < self.threshold < 1:
            raise ValueError(
                f"foreground threshold {self.threshold:g}: expected a probability between 0 and 1"
            )
        if self.min_size < 0:
            raise ValueError(f"min_size {self.min_size}: expected a number of pixels, 0 or more")


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """All that is needed to use the weights, as stored in `model.json`.

    `channels` are the input planes in order, each standardised by its own mean and standard
    deviation, after blocks of `binning` pixels squared have been averaged. `task` tells what the
    outputs mean. `stain` and `stain_scale` (raw intensities that 0 and 1 stand for) belong to stain
    predictions, `postprocessing` to labels. `licence` is that of the weights.
    """

    study: str
    stage: Literal["pretrain", "segment"]
    network: NetworkInfo
    task: Task
    channels: tuple[str, ...]
    binning: int = 1
    stain: str | None = None
    stain_scale: StainScale | None = None
    postprocessing: PostProcessing = PostProcessing()
    licence: str = UNLICENSED
    training: dict[str, Any] = dataclasses.field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """The same as plain values, laid out as in `model.json`."""
        values = dataclasses.asdict(self)
        task = values.pop("task")
        values["objective"] = {
            "target": self.task.kind.value,
            "activation": task["activation"],
            "slope": task["slope"],
        }
        for name in ("distance_scale", "distance_unit"):
            values[name] = task[name]
        values["h"] = values["postprocessing"].pop("h")
        return values

    def to_json(self) -> dict[str, Any]:
        """JSON-like description, with the schema, the versions and the citation."""
        return {
            "schema_version": SCHEMA_VERSION,
            **self.described(),
            "normalisation": "each plane: (x - mean) / max(std, 1/sqrt(pixels))",
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": {name: metadata.version(name) for name in ("isl-jax", "jax", "flax")},
            "citation": CITATION,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "ModelInfo":
        """Inverse of `to_json`; keys that older folders lack get their defaults.

        Raises KeyError for a key that every folder has, ValueError or TypeError for a bad value.
        """
        objective = dict(stored["objective"])
        scale = stored.get("stain_scale")
        optional = ("binning", "stain", "licence", "training")
        return cls(
            study=stored["study"],
            stage=stored["stage"],
            network=NetworkInfo(**stored["network"]),
            task=Task(
                objective.pop("target"),
                **objective,
                distance_scale=stored.get("distance_scale", "normalised"),
                distance_unit=stored.get("distance_unit", NORMALISED_PEAK),
            ),
            channels=tuple(stored["channels"]),
            stain_scale=None if scale is None else StainScale(**scale),
            postprocessing=PostProcessing(h=stored.get("h"), **stored.get("postprocessing", {})),
            **{name: stored[name] for name in optional if name in stored},
        )


def read_info(file: Path) -> ModelInfo:
    """Read a `model.json`; ValueError that names the file and what is wrong with it."""
    remedy = "copy the model again"
    stored = read_json(file, remedy=remedy)
    version = stored.get("schema_version") if isinstance(stored, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{file}: schema version {version}, this isl_jax reads {SCHEMA_VERSION}; "
            "install the version that wrote it (see its `versions`)"
        )
    try:
        info = ModelInfo.from_json(stored)
    except KeyError as error:
        raise ValueError(f"{file}: has no {error}; {remedy}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}; {remedy}") from error
    if len(info.channels) != info.network.in_channels:
        raise ValueError(
            f"{file}: names {len(info.channels)} channels ({', '.join(info.channels)}) for a "
            f"network of {info.network.in_channels} inputs; {remedy}"
        )
    return info


def write_info(folder: Path, info: ModelInfo) -> None:
    """Write `folder/model.json`, whole or not at all."""
    write_json(folder / "model.json", info.to_json())
