"""Which outputs there are, what each needs, and what its files are called."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isl_jax.inference.info import ModelInfo
from isl_jax.inference.model import Prediction
from isl_jax.inference.tiling import ImageLike
from isl_jax.outputs.images import write_labels, write_map
from isl_jax.outputs.outlines import outlines
from isl_jax.outputs.pictures import write_overlay
from isl_jax.outputs.table import write_table
from isl_jax.outputs.vectors import write_geojson, write_rois
from isl_jax.outputs.zarr import write_zarr


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


def _polygons(found: Found) -> list[np.ndarray]:
    assert found.prediction.labels is not None
    return outlines(found.prediction.labels)


def _rois(stem: Path, found: Found) -> None:
    write_rois(_file(stem, "_rois.zip"), _polygons(found))


def _geojson(stem: Path, found: Found) -> None:
    write_geojson(_file(stem, ".geojson"), _polygons(found))


def _table(stem: Path, found: Found) -> None:
    assert found.prediction.labels is not None
    write_table(
        _file(stem, ".csv"),
        found.prediction.labels,
        found.planes,
        found.info.channels,
        pixel_size=found.pixel_size,
    )


def _zarr(stem: Path, found: Found) -> None:
    assert found.prediction.labels is not None and found.planes is not None
    write_zarr(
        _file(stem, ".ome.zarr"),
        found.prediction.labels,
        found.planes,
        found.info.channels,
        name={"nucleus": "nuclei", "cell": "cells"}.get(found.info.study, "objects"),
        pixel_size=found.pixel_size,
    )


def _overlay(stem: Path, found: Found) -> None:
    prediction = found.prediction
    is_stain = prediction.stain is not None
    shown = prediction.stain if is_stain else prediction.probability
    assert shown is not None
    planes = None if is_stain else found.planes
    write_overlay(_file(stem, "_overlay.png"), planes, prediction.labels, shown)


OUTPUTS: Mapping[str, Output] = {
    "labels": Output(("_labels.tif",), _labels, "labels"),
    "stain": Output(("_stain.tif",), _stain, "stain"),
    "maps": Output(("_probability.tif", "_distance.tif"), _maps, "probability"),
    "zarr": Output((".ome.zarr",), _zarr, "labels", needs_image=True),
    "rois": Output(("_rois.zip",), _rois, "labels"),
    "geojson": Output((".geojson",), _geojson, "labels"),
    "table": Output((".csv",), _table, "labels"),
    "overlay": Output(("_overlay.png",), _overlay, "any"),
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
        possible = [
            key
            for key, one in OUTPUTS.items()
            if one.needs == "any" or (one.needs == "stain") == is_stain
        ]
        if name not in possible:
            kind = f"the stain ({info.stain})" if is_stain else "labels"
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
