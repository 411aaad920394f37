"""What a model folder says about itself: `model.json`, its schema, what it refuses."""

import dataclasses
import datetime
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from isl_jax.data.normalisation import PAPER, Normalisation
from isl_jax.data.stain import StainScale
from isl_jax.files import read_json, write_json
from isl_jax.inference.augmented import TTA
from isl_jax.models.architecture import ENCODERS
from isl_jax.task import NORMALISED_PEAK, Kind, Task

# Blocks of a large image are labelled with more around them than such a Gaussian reaches.
MOST_SIGMA = 20.0
# 2: `normalisation` is a table, stains may be scaled by field; older programs must not guess.
SCHEMA_VERSION = 2
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
    models without a distance map; `sigma` that of the Gaussian that smooths the map, in pixels.
    `threshold` is the foreground probability above which a pixel belongs to an object; `min_size`
    drops objects of fewer pixels.
    """

    h: float | None = None
    threshold: float = 0.5
    min_size: int = 0
    fill_holes: bool = False
    keep_unmarked: bool = False
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if self.h is not None and not 0 <= self.h < float("inf"):
            raise ValueError(f"marker contrast h is {self.h}; expected a finite number ≥ 0")
        if not 0 <= self.sigma <= MOST_SIGMA:
            raise ValueError(
                f"sigma is {self.sigma:g}; expected a number of pixels, 0 to {MOST_SIGMA:g}"
            )
        if not 0 < self.threshold < 1:
            raise ValueError(
                f"foreground threshold {self.threshold:g}: expected a probability between 0 and 1"
            )
        if self.min_size < 0:
            raise ValueError(f"min_size {self.min_size}: expected a number of pixels, 0 or more")


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """All that is needed to use the weights, as stored in `model.json`.

    `channels` are the input planes in order, each normalised by `normalisation`, after blocks of
    `binning` pixels squared have been averaged. `task` tells what the outputs mean. `stain` and
    `stain_scale` (what 0 and 1 stand for) belong to stain predictions, `postprocessing` to labels.
    `tta` is how often an image is predicted, flipped and turned (`augmented`). `licence` is that of
    the weights.
    """

    study: str
    stage: Literal["pretrain", "segment"]
    network: NetworkInfo
    task: Task
    channels: tuple[str, ...]
    binning: int = 1
    normalisation: Normalisation = PAPER
    stain: str | None = None
    stain_scale: StainScale | None = None
    postprocessing: PostProcessing = PostProcessing()
    tta: int = 1
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
        for name in ("distance_scale", "distance_unit", "distance_peaks"):
            values[name] = task[name]
        values["h"] = values["postprocessing"].pop("h")
        return values

    def to_json(self) -> dict[str, Any]:
        """JSON-like description, with the schema, the versions and the citation."""
        return {
            "schema_version": SCHEMA_VERSION,
            **self.described(),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": {name: metadata.version(name) for name in ("isl-jax", "jax", "flax")},
            "citation": CITATION,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "ModelInfo":
        """Inverse of `to_json`; keys that older folders lack get their defaults.

        Raises KeyError for a key that every folder has, ValueError or TypeError for a bad value.
        """
        for name, (accepts, expected) in _EXPECTED.items():
            value: Any = stored
            for key in name.split("."):
                value = value[key] if isinstance(value, dict) and key in value else _ABSENT
            if value is not _ABSENT and not accepts(value):
                raise ValueError(f"{name} is {str(value)[:60]!r}, expected {expected}")
        objective = dict(stored["objective"])
        scale = stored.get("stain_scale")
        optional = ("binning", "tta", "stain", "licence", "training")
        info = cls(
            study=stored["study"],
            stage=stored["stage"],
            network=NetworkInfo(**stored["network"]),
            task=Task(
                objective.pop("target"),
                **objective,
                distance_scale=stored.get("distance_scale", "normalised"),
                distance_unit=stored.get("distance_unit", NORMALISED_PEAK),
                distance_peaks=stored.get("distance_peaks", "all"),
            ),
            channels=tuple(stored["channels"]),
            normalisation=Normalisation.from_json(stored.get("normalisation")),
            stain_scale=None if scale is None else StainScale(**scale),
            postprocessing=PostProcessing(h=stored.get("h"), **stored.get("postprocessing", {})),
            **{name: stored[name] for name in optional if name in stored},
        )
        network = info.network
        if len(info.channels) != network.in_channels:
            raise ValueError(
                f"names {len(info.channels)} channels ({', '.join(info.channels)}) for a network "
                f"of {network.in_channels} inputs"
            )
        if network.out_channels != info.task.num_outputs:
            raise ValueError(
                f"tells of {network.out_channels} outputs; {info.task.kind} has "
                f"{info.task.num_outputs}"
            )
        return info


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value < 1 << 16


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -1e300 < value < 1e300


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable()


def _one_of(*words: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: isinstance(value, str) and value in words, f"one of {', '.join(words)}"


_TEXT = (_is_text, "text in one line")
_COUNT = (_is_count, "a whole number, 1 or more")
_NUMBER = (_is_number, "a finite number")
_FLAG = (lambda value: isinstance(value, bool), "true or false")
_TABLE = (lambda value: isinstance(value, dict), "a table")
_ABSENT = object()
# Key of model.json, tables before what is in them → whether a value will do, and which would.
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "study": _TEXT,
    "stage": _one_of("pretrain", "segment"),
    "network": _TABLE,
    "network.encoder": _one_of(*ENCODERS),
    "network.head": _one_of("none", "paper", "reference"),
    "network.out_channels": _COUNT,
    "network.in_channels": _COUNT,
    "objective": _TABLE,
    "objective.target": _one_of(*Kind),
    "objective.slope": _NUMBER,
    "distance_unit": _NUMBER,
    "channels": (
        lambda value: isinstance(value, list) and len(value) > 0 and all(map(_is_text, value)),
        "a list of names",
    ),
    "binning": _COUNT,
    "tta": (
        lambda value: type(value) is int and value in TTA,
        f"one of {', '.join(map(str, TTA))}",
    ),
    "stain": (lambda value: value is None or _is_text(value), "text or null"),
    "stain_scale": (lambda value: value is None or isinstance(value, dict), "a table or null"),
    "stain_scale.low": _NUMBER,
    "stain_scale.high": _NUMBER,
    "h": (lambda value: value is None or _is_number(value), "a finite number or null"),
    "postprocessing": _TABLE,
    "postprocessing.threshold": _NUMBER,
    "postprocessing.min_size": (
        lambda value: type(value) is int and 0 <= value < 1 << 31,
        "a whole number, 0 or more",
    ),
    "postprocessing.sigma": _NUMBER,
    "postprocessing.fill_holes": _FLAG,
    "postprocessing.keep_unmarked": _FLAG,
    "licence": (lambda value: isinstance(value, str), "text"),
    "training": _TABLE,
}


def read_info(file: Path, stored: Any = None) -> ModelInfo:
    """Read a `model.json`, or what `file` says; ValueError that names it and what is wrong."""
    remedy = "copy the model again"
    stored = read_json(file, remedy=remedy) if stored is None else stored
    version = stored.get("schema_version") if isinstance(stored, dict) else None
    if version not in (1, SCHEMA_VERSION):
        raise ValueError(
            f"{file}: schema version {version}, this isl_jax reads 1 and {SCHEMA_VERSION}; "
            "install the version that wrote it (see its `versions`)"
        )
    try:
        info = ModelInfo.from_json(stored)
    except KeyError as error:
        raise ValueError(f"{file}: has no {error}; {remedy}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}; {remedy}") from error
    return info


def write_info(folder: Path, info: ModelInfo) -> None:
    """Write `folder/model.json`, whole or not at all."""
    write_json(folder / "model.json", info.to_json())
