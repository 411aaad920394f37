"""Arrays that may be larger than memory: small ones in memory, large ones in temporary files."""

import contextlib
import itertools
import mmap
import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np

# From here on (5793 × 5793 pixels) an image is worked on in bands and blocks.
MAX_PIXELS = 1 << 25


class Scratch:
    """Gives arrays; those of more than `max_pixels` a plane lie in files below `folder`.

    Use as a context manager to have the files removed at the end. Without a folder they go to the
    system's temporary one, and disappear with the process.
    """

    def __init__(self, folder: Path | None = None, *, max_pixels: int = MAX_PIXELS) -> None:
        self.max_pixels = max_pixels
        self._parent = folder
        self._folder: tempfile.TemporaryDirectory | None = None
        self._numbers = itertools.count()

    def is_large(self, shape: tuple[int, ...]) -> bool:
        """Whether arrays of this shape [..., H, W] go to files."""
        return shape[-2] * shape[-1] > self.max_pixels

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A new array `[..., H, W]`; zeros where it is a file."""
        if not self.is_large(shape):
            return np.empty(shape, dtype)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix=".scratch-", dir=self._parent)
        path = Path(self._folder.name) / f"{next(self._numbers)}.raw"
        return np.memmap(path, dtype, "w+", shape=shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


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
