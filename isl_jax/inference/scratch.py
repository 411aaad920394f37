"""Arrays that may be larger than memory: small ones in memory, large ones in temporary files."""

import contextlib
import mmap
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# From here on (5793 × 5793 pixels) an image is worked on in bands and blocks.
MAX_PIXELS = 1 << 25


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
