"""OME-Zarr images, versions 0.1 to 0.5 (Zarr 2 and 3): images, plates, series, labels."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.ingest.images import (
    ImageFile,
    ImageInfo,
    check_decoded_size,
    damaged,
    numbered,
    reading,
    several_images,
)
from isl_jax.ingest.lengths import spacing_of


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group."""
    return path.is_dir() and any((path / name).is_file() for name in (".zgroup", "zarr.json"))


def list_zarr_images(root: Path) -> Iterator[Path]:
    """The images of a Zarr folder: itself, those of the wells of a plate, or the series within.

    Series come in the order of OME's own list, or else 0, 1, 2, … (as bioformats2raw writes them).
    """
    with reading(root):
        attributes = _attributes(root)
        if isinstance(attributes.get("plate"), dict):
            images = list(_images_of_plate(root, attributes["plate"]))
        elif "multiscales" in attributes:
            images = [root]
        else:
            images = _series(root) or [root]
    yield from images


def _images_of_plate(root: Path, plate: dict) -> Iterator[Path]:
    for well in plate.get("wells", []):
        folder = _inside(root, well["path"])
        if not is_zarr(folder):  # announced and never copied: named when it is opened
            yield folder
            continue
        for image in _attributes(folder).get("well", {}).get("images", []):
            yield _inside(folder, image["path"])


def _series(root: Path) -> list[Path]:
    """Images inside a group that is none itself; empty if there are none."""
    listed = _attributes(root / "OME").get("series")
    if listed:
        return [_inside(root, name) for name in listed]
    inside = [path for path in root.iterdir() if is_zarr(path) and path.name != "OME"]
    inside = [path for path in inside if "multiscales" in _attributes(path)]
    return sorted(inside, key=lambda path: [
        int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)
    ])  # fmt: skip


def list_zarr_labels(path: Path) -> dict[str, Path]:
    """Label images stored inside an image, by name."""
    folder = path / "labels"
    with reading(path):
        names = _attributes(folder).get("labels", []) if is_zarr(folder) else []
        return {name: _inside(folder, name) for name in names}


def _inside(root: Path, name: object) -> Path:
    """A path that metadata give, below the folder that they speak of; ValueError elsewhere."""
    parts = str(name).split("/")
    if not isinstance(name, str) or {"", ".", ".."} & set(parts) or "\\" in name:
        raise ValueError(f"{root}: its metadata name {str(name)[:80]!r}, which is not inside it")
    return root.joinpath(*parts)


class ZarrImage(ImageFile):
    """The full-resolution level of an image; its metadata are read, then the chunks asked for."""

    def __init__(self, path: Path):
        multiscale, attributes = _multiscale(path)
        self._folder = _inside(path, multiscale["datasets"][0]["path"])
        shape, dtype, chunk, self._driver = _array_metadata(self._folder)
        self._axes = _axes(path, multiscale, len(shape))
        sizes = dict(zip(self._axes, shape, strict=True))
        if sizes.get("t", 1) > 1:
            raise ValueError(
                f"{path}: has {sizes['t']} time points, expected one; save each as an image of its "
                "own"
            )
        if dtype.kind not in "biuf":
            raise ValueError(f"{path}: holds {dtype} values, expected integers or floats")
        if min(shape) < 1:
            raise damaged(path, f"an image of {'×'.join(map(str, shape))} pixels")
        _check_sizes(self._folder, shape, chunk, dtype.itemsize)
        num_channels = sizes.get("c", 1)
        channels = (attributes.get("omero") or {}).get("channels") or []
        labels = [channel.get("label") for channel in channels]
        if len(labels) != num_channels or not all(labels):
            labels = numbered(num_channels)
        info = ImageInfo(
            channels=tuple(map(str, labels)),
            planes=sizes.get("z", 1),
            height=sizes["y"],
            width=sizes["x"],
            dtype=dtype,
            spacing=_spacing(multiscale, self._axes),
        )
        super().__init__(path, info)

    def _decode(self, channel: int, planes: list[int]) -> np.ndarray:
        return np.stack([self.mapped(channel, plane)[:, :] for plane in planes])

    def mapped(self, channel: int, plane: int) -> "ChunkedPlane":
        """A plane of which only the chunks that are asked for are read."""
        import tensorstore  # costs a quarter of a second, and few data sets need it

        folder = self._folder.resolve()  # the library takes no `..`
        spec = {"driver": self._driver, "kvstore": {"driver": "file", "path": f"{folder}/"}}
        with reading(self.path):
            array: Any = tensorstore.open(spec, open=True, read=True).result()
        index = {"t": 0, "c": channel, "z": plane}
        selected = array[tuple(index.get(axis, slice(None)) for axis in self._axes)]
        return ChunkedPlane(self.path, selected, tuple(selected.shape))


@dataclass(frozen=True)
class ChunkedPlane:
    """A plane [H, W] in chunks, of which only those that are asked for are read."""

    path: Path
    array: Any
    shape: tuple[int, ...]

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        # Sides are cut here: the library refuses slices beyond the end.
        sides = [slice(*side.indices(n)[:2]) for side, n in zip(key, self.shape, strict=True)]
        with reading(self.path):
            return self.array[tuple(sides)].read().result()


def _attributes(folder: Path) -> dict:
    """OME attributes of a group, wherever the version keeps them; empty if there are none."""
    for name in (".zattrs", "zarr.json"):
        file = folder / name
        if file.is_file():
            record = _read_json(file)
            found = record
            if name == "zarr.json":
                attributes = record.get("attributes") or {}
                found = attributes.get("ome") or attributes
            if not isinstance(found, dict):
                raise damaged(file, "no attributes")
            return found
    return {}


def _read_json(file: Path) -> dict:
    with reading(file):
        record = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise damaged(file, f"a {type(record).__name__}, expected an object")
        return record


def _multiscale(path: Path) -> tuple[dict, dict]:
    attributes = _attributes(path)
    multiscales = attributes.get("multiscales")
    if not multiscales:
        inside = [] if isinstance(attributes.get("plate"), dict) else _series(path)
        if inside:
            names = [image.name for image in inside]
            raise several_images(path, names, f"name one of them: {inside[0]}")
        raise ValueError(f"{path}: is not an OME-Zarr image (no multiscales in its attributes)")
    if len(multiscales) > 1:
        names = [str(scale.get("name", k)) for k, scale in enumerate(multiscales)]
        raise several_images(path, names, "save each as an image of its own")
    if not multiscales[0].get("datasets"):
        raise damaged(path, "no datasets in its multiscales")
    return multiscales[0], attributes


def _axes(path: Path, multiscale: dict, ndim: int) -> list[str]:
    axes = [axis["name"] if isinstance(axis, dict) else axis for axis in multiscale.get("axes", [])]
    axes = axes or list("tczyx")[-ndim:]
    if len(axes) != ndim or axes[-2:] != ["y", "x"] or not set(axes) <= set("tczyx"):
        raise ValueError(f"{path}: has axes {axes}, expected some of t, c, z and then y, x")
    return axes


def _array_metadata(folder: Path) -> tuple[tuple[int, ...], np.dtype, tuple[int, ...], str]:
    """Shape, dtype, chunk and tensorstore driver of an array, from its metadata file."""
    if (folder / ".zarray").is_file():
        record = _read_json(folder / ".zarray")
        dtype = np.dtype(record["dtype"]).newbyteorder("=")
        return tuple(record["shape"]), dtype, tuple(record["chunks"]), "zarr"
    if (folder / "zarr.json").is_file():
        record = _read_json(folder / "zarr.json")
        chunk = record["chunk_grid"]["configuration"]["chunk_shape"]
        return tuple(record["shape"]), np.dtype(record["data_type"]), tuple(chunk), "zarr3"
    raise FileNotFoundError(f"{folder}: the full-resolution array is missing; copy the image again")


def _check_sizes(folder: Path, shape: tuple, chunk: tuple, itemsize: int) -> None:
    """ValueError if the chunks on disk cannot hold an array of that size."""
    if not all(isinstance(n, int) and n > 0 for n in (*shape, *chunk)) or len(chunk) != len(shape):
        raise damaged(folder, f"shape {shape} in chunks {chunk}")
    stored, largest = 0, 0
    # A plane in memory, or one chunk, whichever is more: no more is decoded at a time.
    decoded = max(math.prod(shape[-2:]), math.prod(chunk)) * itemsize
    for file in folder.rglob("*"):
        if file.name not in (".zarray", "zarr.json", ".zattrs") and file.is_file():
            largest = max(largest, file.stat().st_size)
            stored += file.stat().st_size
            if 1000 * stored >= decoded and 1000 * largest >= math.prod(chunk) * itemsize:
                break
    check_decoded_size(folder, decoded, stored)
    check_decoded_size(folder, math.prod(chunk) * itemsize, largest)


def _spacing(multiscale: dict, axes: list[str]) -> tuple[float, float] | None:
    """Sides (y, x) of a pixel in µm: the scale of the data set times that of all its levels."""
    units = {
        axis["name"]: axis.get("unit")
        for axis in multiscale.get("axes", [])
        if isinstance(axis, dict)
    }
    scales = [
        transform["scale"]
        for holder in (multiscale["datasets"][0], multiscale)
        for transform in holder.get("coordinateTransformations") or []
        if transform.get("type") == "scale"
    ]
    if not scales:
        return None
    try:
        y, x = (math.prod(float(scale[axes.index(axis)]) for scale in scales) for axis in "yx")
    except (TypeError, ValueError, IndexError, KeyError):
        return None
    return spacing_of(y, x, units.get("y"), units.get("x"))
