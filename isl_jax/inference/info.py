"""What a model folder says about itself: `model.json`, its schema, what it refuses."""

import dataclasses
import datetime
import json
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from isl_jax.data.normalisation import StainScale
from isl_jax.training.objectives import Objective

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
    """From maps to labels, beside the marker contrast `h` (options of `label_instances`).

    `threshold` is the foreground probability above which a pixel belongs to an object; `min_size`
    drops objects of fewer pixels.
    """

    threshold: float = 0.5
    min_size: int = 0
    fill_holes: bool = False
    keep_unmarked: bool = False

    def __post_init__(self) -> None:
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
    deviation, after blocks of `binning` pixels squared have been averaged. `objective` tells what
    the outputs mean. `stain` and `stain_scale` (raw intensities that 0 and 1 stand for) belong to
    stain predictions; `distance_scale` (`normalised`, `pixels`), `distance_unit` (map units that an
    output of 1 stands for) and `h` (in map units, the contrast of a marker) to instances;
    `postprocessing` to labels of either kind. `licence` is that of the weights.
    """

    study: str
    stage: Literal["pretrain", "segment"]
    network: NetworkInfo
    objective: Objective
    channels: tuple[str, ...]
    binning: int = 1
    stain: str | None = None
    stain_scale: StainScale | None = None
    distance_scale: str = "normalised"
    distance_unit: float = 255.0
    h: float | None = None
    postprocessing: PostProcessing = PostProcessing()
    licence: str = UNLICENSED
    training: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON-like description, with the schema, the versions and the citation."""
        return {
            "schema_version": SCHEMA_VERSION,
            **dataclasses.asdict(self),
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
        fields = dataclasses.fields(cls)
        values = {
            field.name: stored[field.name]
            for field in fields
            if field.name in stored or _is_required(field)
        }
        values["network"] = NetworkInfo(**values["network"])
        values["objective"] = Objective(**values["objective"])
        values["channels"] = tuple(values["channels"])
        if values.get("stain_scale") is not None:
            values["stain_scale"] = StainScale(**values["stain_scale"])
        if "postprocessing" in values:
            values["postprocessing"] = PostProcessing(**values["postprocessing"])
        return cls(**values)


def _is_required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def read_info(file: Path) -> ModelInfo:
    """Read a `model.json`; ValueError that names the file and what is wrong with it."""
    try:
        stored = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: damaged ({error}); copy the model again") from error
    version = stored.get("schema_version") if isinstance(stored, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{file}: schema version {version}, this isl_jax reads {SCHEMA_VERSION}; "
            "install the version that wrote it (see its `versions`)"
        )
    try:
        info = ModelInfo.from_json(stored)
    except KeyError as error:
        raise ValueError(f"{file}: has no {error}; copy the model again") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}; copy the model again") from error
    if len(info.channels) != info.network.in_channels:
        raise ValueError(
            f"{file}: names {len(info.channels)} channels ({', '.join(info.channels)}) for a "
            f"network of {info.network.in_channels} inputs; copy the model again"
        )
    return info


def write_info(folder: Path, info: ModelInfo) -> None:
    """Write `folder/model.json`, whole or not at all."""
    temporary = folder / "model.json.tmp"
    temporary.write_text(json.dumps(info.to_json(), indent=2) + "\n")
    temporary.replace(folder / "model.json")
