"""Which outputs there are, what each needs, and what its files are called."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isl_jax.inference.info import ModelInfo
from isl_jax.inference.large import OpenedImage
from isl_jax.inference.model import Prediction
from isl_jax.outputs.pictures import write_overlay
from isl_jax.outputs.rasters import write_labels, write_map
from isl_jax.outputs.table import write_table
from isl_jax.outputs.vectors import outlines, write_geojson, write_rois
from isl_jax.outputs.zarr import write_zarr

# Writes the files of one output, given in the order of their suffixes.
Writer = Callable[[list[Path], ModelInfo, OpenedImage, Prediction], None]


@dataclass(frozen=True)
class Output:
    """One kind of output: how its files are called after the image's name, and written.

    `of_stain`: whether stain models give it, and models of labels do. Without `suffixes` the files
    go by the names of the task's maps; `needs_image`: raw pixels are shown.
    """

    write: Writer
    suffixes: tuple[str, ...] = ()
    of_stain: tuple[bool, ...] = (False,)
    needs_image: bool = False

    def files(self, name: str, info: ModelInfo) -> list[str]:
        """Names of the files that the output of an image consists of."""
        suffixes = self.suffixes or tuple(f"_{kind}.tif" for kind in info.task.map_names)
        return [f"{name}{suffix}" for suffix in suffixes]


def _labels(paths: list[Path], _: ModelInfo, image: OpenedImage, found: Prediction) -> None:
    write_labels(paths[0], _labels_of(found), spacing=image.spacing, binning=image.binning)


def _maps(paths: list[Path], info: ModelInfo, image: OpenedImage, found: Prediction) -> None:
    for path, kind in zip(paths, info.task.map_names, strict=True):
        values = getattr(found, kind)
        if info.task.is_stain and info.stain_scale is not None:
            values = info.stain_scale.unscale(values)
        write_map(path, values, spacing=image.spacing, binning=image.binning)


def _rois(paths: list[Path], _: ModelInfo, image: OpenedImage, found: Prediction) -> None:
    write_rois(paths[0], outlines(_labels_of(found), binning=image.binning))


def _geojson(paths: list[Path], _: ModelInfo, image: OpenedImage, found: Prediction) -> None:
    write_geojson(paths[0], outlines(_labels_of(found), binning=image.binning))


def _table(paths: list[Path], info: ModelInfo, image: OpenedImage, found: Prediction) -> None:
    pixels = {"spacing": image.spacing, "binning": image.binning}
    write_table(paths[0], _labels_of(found), image.planes, info.channels, **pixels)


def _zarr(paths: list[Path], info: ModelInfo, image: OpenedImage, found: Prediction) -> None:
    assert image.planes is not None
    write_zarr(
        paths[0],
        _labels_of(found),
        image.planes,
        info.channels,
        name={"nucleus": "nuclei", "cell": "cells"}.get(info.study, "objects"),
        spacing=image.spacing,
        binning=image.binning,
    )


def _overlay(paths: list[Path], info: ModelInfo, image: OpenedImage, found: Prediction) -> None:
    shown = getattr(found, info.task.map_names[-1])
    planes = None if info.task.is_stain else image.planes
    write_overlay(paths[0], planes, found.labels, shown)


def _labels_of(found: Prediction) -> np.ndarray:
    assert found.labels is not None
    return found.labels


OUTPUTS: Mapping[str, Output] = {
    "labels": Output(_labels, ("_labels.tif",)),
    "stain": Output(_maps, of_stain=(True,)),
    "maps": Output(_maps),
    "zarr": Output(_zarr, (".ome.zarr",), needs_image=True),
    "rois": Output(_rois, ("_rois.zip",)),
    "geojson": Output(_geojson, (".geojson",)),
    "table": Output(_table, (".csv",)),
    "overlay": Output(_overlay, ("_overlay.png",), of_stain=(True, False)),
}


def outputs_of(
    info: ModelInfo, wanted: Iterable[str] | None = None, *, with_images: bool = True
) -> tuple[str, ...]:
    """Check which outputs can be given; by default a model's labels, or its stain.

    Raises ValueError for an unknown output, for one that the model does not predict, and for one
    that shows images when there are none (`with_images`).
    """
    is_stain = info.task.is_stain
    if wanted is None:
        return ("stain",) if is_stain else ("labels",)
    possible = [name for name, one in OUTPUTS.items() if is_stain in one.of_stain]
    for name in wanted:
        if name not in OUTPUTS:
            raise ValueError(f"--outputs={name}: choose among {', '.join(OUTPUTS)}")
        if name not in possible:
            kind = f"the stain ({info.stain})" if is_stain else "labels"
            raise ValueError(
                f"--outputs={name}: this model predicts {kind}; choose among {', '.join(possible)}"
            )
        if OUTPUTS[name].needs_image and not with_images:
            raise ValueError(f"--outputs={name} shows the images: give them with --input")
    return tuple(dict.fromkeys(wanted))


def files_of_image(info: ModelInfo, outputs: Iterable[str], name: str) -> list[str]:
    """Names of the files that `write_outputs` writes for an image of that name."""
    return [file for output in outputs for file in OUTPUTS[output].files(name, info)]


def write_outputs(
    folder: Path,
    info: ModelInfo,
    outputs: Iterable[str],
    image: OpenedImage,
    prediction: Prediction,
) -> list[str]:
    """Write the outputs of an image, each whole or not at all; returns the names of the files."""
    written = []
    for output in outputs:
        names = files_of_image(info, [output], image.name)
        OUTPUTS[output].write([folder / name for name in names], info, image, prediction)
        written += names
    return written
