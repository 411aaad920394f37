"""Planes that are read by windows, wherever they lie: no image needs to fit into memory."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile

from isl_jax.inference.scratch import Scratch
from isl_jax.inference.tiling import ImageLike
from isl_jax.ingest import readers
from isl_jax.ingest.checks import parts_of
from isl_jax.ingest.discovery import Part, RawField
from isl_jax.ingest.layouts import Role
from isl_jax.ingest.ome_zarr import is_zarr
from isl_jax.ingest.projections import PROJECTIONS, bin_average


@dataclass(frozen=True)
class PlaneStack:
    """Planes `[H, W]` of one shape, wherever they lie, as one image `[C, H, W]`."""

    planes: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return (len(self.planes), *self.planes[0].shape)

    def __getitem__(self, key: tuple[slice, slice, slice]) -> np.ndarray:
        seen: dict[int, np.ndarray] = {}
        for plane in self.planes[key[0]]:
            if id(plane) not in seen:
                seen[id(plane)] = np.asarray(plane[key[1], key[2]])
        return np.stack([seen[id(plane)] for plane in self.planes[key[0]]])


def large_role(field: RawField, role: Role, scratch: Scratch) -> list[Any]:
    """Planes of a role, projected, none of which needs to fit into memory."""
    parts = parts_of(field, role)
    address = [(part, k) for part in parts for k in range(part.inspect().planes)]
    planes = [_large_plane(*address[k], scratch) for k in role.select(len(address))]
    return [Projected(tuple(planes), role.projection)] if role.projection in PROJECTIONS else planes


@dataclass(frozen=True)
class Projected:
    """The projection of large planes, made for the window that is asked for."""

    planes: tuple[Any, ...]
    projection: str
    # As far as a projection looks around a pixel (two windows of seven).
    reach: int = 6

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""
        return self.planes[0].shape

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        bounds = [side.indices(size) for side, size in zip(key, self.shape, strict=True)]
        wider = tuple(slice(max(0, a - self.reach), b + self.reach) for a, b, _ in bounds)
        stack = np.stack([np.asarray(plane[wider]) for plane in self.planes])
        inner = tuple(
            slice(a - w.start, b - w.start) for (a, b, _), w in zip(bounds, wider, strict=True)
        )
        return PROJECTIONS[self.projection](stack)[inner]


@dataclass(frozen=True)
class Binned:
    """A large plane, blocks of `factor` pixels squared being averaged where it is read."""

    plane: Any
    factor: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""
        return tuple(size // self.factor for size in self.plane.shape)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        bounds = [side.indices(size) for side, size in zip(key, self.shape, strict=True)]
        wider = tuple(slice(a * self.factor, b * self.factor) for a, b, _ in bounds)
        return bin_average(np.asarray(self.plane[wider]), self.factor)


def _large_plane(part: Part, number: int, scratch: Scratch) -> Any:
    """A plane that is read by windows: mapped or chunked where it lies, or unpacked to a file."""
    mapped = _mapped(part, number)
    if mapped is not None:
        return mapped
    pixels = part.read([number])[0]
    unpacked = scratch.empty(pixels.shape, pixels.dtype)
    unpacked[:] = pixels
    return unpacked


@dataclass(frozen=True)
class ChunkedPlane:
    """A plane of an OME-Zarr image, of which only the chunks that are asked for are read."""

    array: Any
    shape: tuple[int, ...]

    @classmethod
    def of(cls, part: Part, number: int) -> "ChunkedPlane":
        """The plane `number` of a channel, at full resolution."""
        import tensorstore  # costs a quarter of a second, and few data sets need it

        attributes = part.path / ".zattrs"
        if attributes.exists():
            described = json.loads(attributes.read_text())
        else:
            described = json.loads((part.path / "zarr.json").read_text())["attributes"]["ome"]
        multiscale = described["multiscales"][0]
        folder = part.path / multiscale["datasets"][0]["path"]
        kvstore = {"driver": "file", "path": f"{folder}/"}
        array: Any = tensorstore.open({"driver": "auto", "kvstore": kvstore}, read=True).result()
        axes = [axis["name"] for axis in multiscale.get("axes", [])] or list("tczyx")[-array.rank :]
        index = {"t": 0, "c": part.channel or 0, "z": number}
        plane = array[tuple(index.get(axis, slice(None)) for axis in axes)]
        return cls(plane, tuple(plane.shape))

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        # Sides are cut here: the library refuses slices beyond the end.
        sides = [slice(*side.indices(n)[:2]) for side, n in zip(key, self.shape, strict=True)]
        return self.array[tuple(sides)].read().result()


def _mapped(part: Part, number: int) -> Any:
    """The plane, read where it lies: of OME-Zarr, .npy and uncompressed TIFF; None for others."""
    suffix = part.path.suffix.lower()
    info = part.inspect()
    if is_zarr(part.path):
        return ChunkedPlane.of(part, number)
    if suffix == ".npy":
        array = np.load(part.path, mmap_mode="r")
        return array[number] if array.ndim == 3 else array
    if suffix not in readers.TIFF_SUFFIXES or part.colour or info.siblings:
        return None
    with tifffile.TiffFile(part.path) as tiff:
        series = tiff.series[0]
        axes, contiguous = series.axes, series.dataoffset is not None
    if not contiguous or len(info.channels) * info.planes != np.prod(series.shape[:-2]):
        return None
    array = np.asanyarray(tifffile.memmap(part.path, mode="r"))
    index = tuple(
        (part.channel or 0) if axis == "C" else number if size > 1 else 0
        for axis, size in zip(axes[:-2], series.shape[:-2], strict=True)
    )
    return array.reshape(series.shape)[index] if axes[-2:] == "YX" else None


@dataclass(frozen=True)
class RepeatedPlane:
    """One plane in the place of several, without a copy: `[C, H, W]` of `plane` `[1, H, W]`."""

    plane: ImageLike
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return (self.count, *self.plane.shape[1:])

    def __getitem__(self, key: tuple[slice, slice, slice]) -> np.ndarray:
        pixels = np.asarray(self.plane[slice(None), key[1], key[2]])
        return np.broadcast_to(pixels, (self.count, *pixels.shape[1:]))[key[0]]
