"""OME-Zarr images, versions 0.4 (Zarr 2) and 0.5 (Zarr 3): single images, plates, labels."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.ingest.images import MICROMETRES, ImageFile, ImageInfo, damaged


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group."""
    return path.is_dir() and any((path / name).is_file() for name in (".zgroup", "zarr.json"))


def list_zarr_images(root: Path) -> Iterator[Path]:
    """The images of a Zarr folder: itself, or every image of every well if it is a plate."""
    attributes = _attributes(root)
    if "plate" not in attributes:
        yield root
        return
    for well in attributes["plate"].get("wells", []):
        folder = root / well["path"]
        for image in _attributes(folder).get("well", {}).get("images", []):
            yield folder / image["path"]


def list_zarr_labels(path: Path) -> dict[str, Path]:
    """Label images stored inside an image, by name."""
    folder = path / "labels"
    names = _attributes(folder).get("labels", []) if is_zarr(folder) else []
    return {name: folder / name for name in names}


class ZarrImage(ImageFile):
    """The full-resolution level of an image; its metadata are read, then the chunks asked for."""

    def __init__(self, path: Path):
        multiscale, attributes = _multiscale(path)
        self._folder = path / multiscale["datasets"][0]["path"]
        shape, dtype, self._driver = _array_metadata(self._folder)
        self._axes = _axes(path, multiscale, len(shape))
        sizes = dict(zip(self._axes, shape, strict=True))
        if sizes.get("t", 1) > 1:
            raise ValueError(
                f"{path}: has {sizes['t']} time points, expected one; save each as an image of its "
                "own"
            )
        if dtype.kind not in "biuf":
            raise ValueError(f"{path}: holds {dtype} values, expected integers or floats")
        num_channels = sizes.get("c", 1)
        labels = [c.get("label") for c in attributes.get("omero", {}).get("channels", [])]
        if len(labels) != num_channels or not all(labels):
            labels = [str(k) for k in range(num_channels)]
        info = ImageInfo(
            channels=tuple(map(str, labels)),
            planes=sizes.get("z", 1),
            height=sizes["y"],
            width=sizes["x"],
            dtype=dtype,
            pixel_size=_pixel_size(multiscale, self._axes),
        )
        super().__init__(path, info)

    def _decode(self, channel: int, planes: list[int]) -> np.ndarray:
        return np.stack([self.mapped(channel, plane)[:, :] for plane in planes])

    def mapped(self, channel: int, plane: int) -> "ChunkedPlane":
        """A plane of which only the chunks that are asked for are read."""
        import tensorstore  # costs a quarter of a second, and few data sets need it

        spec = {"driver": self._driver, "kvstore": {"driver": "file", "path": f"{self._folder}/"}}
        try:
            array: Any = tensorstore.open(spec, open=True, read=True).result()
        except (ValueError, OSError) as error:
            raise damaged(self.path, error) from error
        index = {"t": 0, "c": channel, "z": plane}
        selected = array[tuple(index.get(axis, slice(None)) for axis in self._axes)]
        return ChunkedPlane(selected, tuple(selected.shape))


@dataclass(frozen=True)
class ChunkedPlane:
    """A plane [H, W] in chunks, of which only those that are asked for are read."""

    array: Any
    shape: tuple[int, ...]

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        # Sides are cut here: the library refuses slices beyond the end.
        sides = [slice(*side.indices(n)[:2]) for side, n in zip(key, self.shape, strict=True)]
        return self.array[tuple(sides)].read().result()


def _attributes(folder: Path) -> dict:
    """OME attributes of a group, wherever the version keeps them; empty if there are none."""
    for name in (".zattrs", "zarr.json"):
        file = folder / name
        if file.is_file():
            try:
                record = json.loads(file.read_text())
            except ValueError as error:
                raise damaged(file, error) from None
            return record if name == ".zattrs" else record.get("attributes", {}).get("ome", {})
    return {}


def _multiscale(path: Path) -> tuple[dict, dict]:
    attributes = _attributes(path)
    multiscales = attributes.get("multiscales")
    if not multiscales or not multiscales[0].get("datasets"):
        raise ValueError(f"{path}: is not an OME-Zarr image (no multiscales in its attributes)")
    return multiscales[0], attributes


def _axes(path: Path, multiscale: dict, ndim: int) -> list[str]:
    axes = [axis["name"] if isinstance(axis, dict) else axis for axis in multiscale.get("axes", [])]
    axes = axes or list("tczyx")[-ndim:]
    if len(axes) != ndim or axes[-2:] != ["y", "x"] or not set(axes) <= set("tczyx"):
        raise ValueError(f"{path}: has axes {axes}, expected some of t, c, z and then y, x")
    return axes


def _array_metadata(folder: Path) -> tuple[tuple[int, ...], np.dtype, str]:
    """Shape, dtype and tensorstore driver of an array, from its metadata file."""
    try:
        if (folder / ".zarray").is_file():
            record = json.loads((folder / ".zarray").read_text())
            return tuple(record["shape"]), np.dtype(record["dtype"]).newbyteorder("="), "zarr"
        if (folder / "zarr.json").is_file():
            record = json.loads((folder / "zarr.json").read_text())
            return tuple(record["shape"]), np.dtype(record["data_type"]), "zarr3"
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(folder, error) from None
    raise FileNotFoundError(f"{folder}: the full-resolution array is missing; copy the image again")


def _pixel_size(multiscale: dict, axes: list[str]) -> float | None:
    unit = next(
        (
            a.get("unit")
            for a in multiscale.get("axes", [])
            if isinstance(a, dict) and a["name"] == "x"
        ),
        None,
    )
    for transform in multiscale["datasets"][0].get("coordinateTransformations", []):
        if transform.get("type") == "scale" and unit in MICROMETRES:
            return float(transform["scale"][axes.index("x")]) * MICROMETRES[unit]
    return None
