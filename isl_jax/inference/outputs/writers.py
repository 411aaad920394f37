"""Which outputs there are, what each needs, and what its files are called."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from isl_jax.inference.description import ModelInfo
from isl_jax.inference.model import Prediction
from isl_jax.inference.outputs.images import write_labels, write_map
from isl_jax.inference.tiling import ImageLike


@dataclass(frozen=True)
class Found:
    """All that is known of an image once it has been predicted.

    `planes` `[C, H, W]` are its raw pixels, None when only maps were given; pixel_size in µm.
    """

    name: str
    info: ModelInfo
    prediction: Prediction
    planes: ImageLike | None = None
    pixel_size: float | None = None


@dataclass(frozen=True)
class Output:
    """One kind of output: `files` of an image (after its name), how they are written.

    `needs`: what a prediction must hold for it; `needs_image`: whether raw pixels are shown.
    """

    files: tuple[str, ...]
    write: Callable[[Path, Found], None]
    needs: str
    needs_image: bool = False


def _labels(stem: Path, found: Found) -> None:
    assert found.prediction.labels is not None
    write_labels(_file(stem, "_labels.tif"), found.prediction.labels, pixel_size=found.pixel_size)


def _stain(stem: Path, found: Found) -> None:
    stain, scale = found.prediction.stain, found.info.stain_scale
    assert stain is not None
    units = stain if scale is None else scale.unscale(stain)
    write_map(_file(stem, "_stain.tif"), units, pixel_size=found.pixel_size)


def _maps(stem: Path, found: Found) -> None:
    for name in ("probability", "distance"):
        values = getattr(found.prediction, name)
        if values is not None:
            write_map(_file(stem, f"_{name}.tif"), values, pixel_size=found.pixel_size)


OUTPUTS: Mapping[str, Output] = {
    "labels": Output(("_labels.tif",), _labels, "labels"),
    "stain": Output(("_stain.tif",), _stain, "stain"),
    "maps": Output(("_probability.tif", "_distance.tif"), _maps, "probability"),
}


def _file(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def outputs_of(info: ModelInfo, wanted: Iterable[str] | None = None) -> tuple[str, ...]:
    """Check which outputs a model can give; by default its labels, or its stain.

    Raises ValueError for an unknown output, and for one that the model does not predict.
    """
    is_stain = info.objective.target == "stain"
    if wanted is None:
        return ("stain",) if is_stain else ("labels",)
    for name in wanted:
        if name not in OUTPUTS:
            raise ValueError(f"--outputs={name}: choose among {', '.join(OUTPUTS)}")
        if (OUTPUTS[name].needs == "stain") != is_stain:
            kind = f"the stain ({info.stain})" if is_stain else "labels"
            possible = [key for key, one in OUTPUTS.items() if (one.needs == "stain") == is_stain]
            raise ValueError(
                f"--outputs={name}: this model predicts {kind}; choose among {', '.join(possible)}"
            )
    return tuple(dict.fromkeys(wanted))


def files_of(name: str, outputs: Iterable[str], info: ModelInfo) -> list[str]:
    """Names of the files that the outputs of an image consist of."""
    files = [f"{name}{suffix}" for output in outputs for suffix in OUTPUTS[output].files]
    if info.objective.target != "distance_and_semantic":
        files = [file for file in files if not file.endswith("_distance.tif")]
    return files


def write_outputs(folder: Path, found: Found, outputs: Iterable[str]) -> None:
    """Write the outputs of an image; each file appears whole or not at all."""
    for output in outputs:
        OUTPUTS[output].write(folder / found.name, found)
