"""Images that need not fit into memory: arrays in temporary files, planes read by windows."""

import contextlib
import mmap
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from isl_jax.data.binning import bin_average

# From here on (5793 × 5793 pixels) an image is worked on in bands and blocks.
MAX_PIXELS = 1 << 25
_BAND_ROWS = 1024


class ImageLike(Protocol):
    """`[C, H, W]` pixels that are read by slices: arrays, memory maps, stacks of planes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        ...

    def __getitem__(self, key: tuple[slice, slice, slice], /) -> np.ndarray: ...


class PlaneLike(Protocol):
    """`[H, W]` pixels that are read by slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""
        ...

    def __getitem__(self, key: tuple[slice, slice], /) -> np.ndarray: ...


@dataclass(frozen=True)
class OpenedImage:
    """An image ready to be predicted: `planes` `[C, H, W]`, raw, binned.

    `spacing` is the distance of their pixels in µm, (y, x), if it is known; `binning` says how many
    pixels of the input files, squared, one of them is. Where `maps` `[K, H, W]` of an earlier
    prediction are given, the planes may be missing.
    """

    name: str
    planes: ImageLike | None
    paths: tuple[Path, ...]
    spacing: tuple[float, float] | None = None
    binning: int = 1
    maps: np.ndarray | None = None


@dataclass(frozen=True)
class Scratch:
    """Gives arrays; those of more than `max_pixels` a plane lie in files in `folder`.

    The files have no name and are gone with the arrays, or with the process however it ends.
    Without a folder they are in the system's temporary one.
    """

    folder: Path | None = None
    max_pixels: int = MAX_PIXELS

    def is_large(self, shape: tuple[int, ...]) -> bool:
        """Whether arrays of this shape [..., H, W] go to files."""
        return shape[-2] * shape[-1] > self.max_pixels

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A new array `[..., H, W]`; OSError if the disk has no room for it."""
        if not self.is_large(shape):
            return np.empty(shape, dtype)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            if hasattr(os, "posix_fallocate"):
                # Now: a full disk met while writing to a memory map would kill the process.
                size = int(np.prod(shape)) * np.dtype(dtype).itemsize
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "w+", shape=shape)


def release(array: Any) -> None:
    """Let go of the memory behind a memory map that has been read or written, not of its content.

    Resident pages of a file count as memory of the process until then. Images made of planes are
    let go of plane by plane; nothing happens to other arrays.
    """
    for inner in (getattr(array, "plane", None), *getattr(array, "planes", ())):
        if inner is not None:
            release(inner)
    mapped = getattr(array, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        with contextlib.suppress(OSError, ValueError):
            # Written pages go on to the file: the mapping is a shared one.
            mapped.madvise(mmap.MADV_DONTNEED)


def largest(labels: np.ndarray) -> int:
    """The highest id of a label image, read in bands of rows; 0 when there is none."""
    found = 0
    for top in range(0, len(labels), _BAND_ROWS):
        found = max(found, int(labels[top : top + _BAND_ROWS].max(initial=0)))
        release(labels)
    return found


@dataclass(frozen=True)
class PlaneStack:
    """Planes `[H, W]` of one shape, wherever they lie, as one image `[C, H, W]`."""

    planes: tuple[PlaneLike, ...]

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


@dataclass(frozen=True)
class Projected:
    """The projection of large planes, made for the window that is asked for."""

    planes: tuple[PlaneLike, ...]
    project: Callable[[np.ndarray], np.ndarray]
    # As far as a projection looks around a pixel (two windows of seven).
    reach: int = 6

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""
        return self.planes[0].shape

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        bounds = [side.indices(size) for side, size in zip(key, self.shape, strict=True)]
        wider = [slice(max(0, a - self.reach), b + self.reach) for a, b, _ in bounds]
        stack = np.stack([np.asarray(plane[wider[0], wider[1]]) for plane in self.planes])
        inner = tuple(
            slice(a - w.start, b - w.start) for (a, b, _), w in zip(bounds, wider, strict=True)
        )
        return self.project(stack)[inner]


@dataclass(frozen=True)
class Binned:
    """A large plane, blocks of `factor` pixels squared being averaged where it is read."""

    plane: PlaneLike
    factor: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""
        return tuple(size // self.factor for size in self.plane.shape)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        bounds = [side.indices(size) for side, size in zip(key, self.shape, strict=True)]
        rows, columns = (slice(a * self.factor, b * self.factor) for a, b, _ in bounds)
        return bin_average(np.asarray(self.plane[rows, columns]), self.factor)


class FileLike(Protocol):
    """A file with planes: `ingest.readers.ImageFile`."""

    def mapped(self, channel: int, plane: int) -> PlaneLike | None:
        """A plane that is read where it lies, or None."""
        ...

    def read(self, channel: int, planes: list[int]) -> np.ndarray:
        """Planes of one channel, `[P, H, W]`."""
        ...


def by_windows(file: FileLike, channel: int, plane: int, scratch: Scratch) -> PlaneLike:
    """A plane that is read by windows: where it lies if it can be, or else from a scratch file."""
    mapped = file.mapped(channel, plane)
    if mapped is not None:
        return mapped
    pixels = file.read(channel, [plane])[0]
    unpacked = scratch.empty(pixels.shape, pixels.dtype)
    unpacked[:] = pixels
    return unpacked
