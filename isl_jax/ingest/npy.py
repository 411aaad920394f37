"""NumPy files, and of Cellpose's pickled `_seg.npy` the masks, without running what it contains."""

import math
from pathlib import Path

import numpy as np

from isl_jax.ingest.images import ImageFile, ImageInfo, damaged
from isl_jax.ingest.pickled import NotHarmlessError, PickledArray, load_arrays

# An axis no longer than this, after two that are longer, is of colours or channels.
_MOST_SAMPLES = 4


class NumpyImage(ImageFile):
    """A .npy image [H, W] or [P, H, W], memory-mapped."""

    def __init__(self, path: Path):
        array = _read_npy(path)
        if array.ndim == 4 and array.shape[0] == array.shape[3] == 1:
            array = array[..., 0]  # as DeepCell's Mesmer writes masks
        if array.ndim not in (2, 3) or array.dtype.kind not in "biuf":
            raise ValueError(
                f"{path}: holds {array.dtype} {list(array.shape)}, expected numbers [H, W] or "
                "[P, H, W]"
            )
        if array.ndim == 3 and array.shape[-1] <= _MOST_SAMPLES < array.shape[1]:
            raise ValueError(
                f"{path}: holds {list(array.shape)}, which looks like [H, W, C]; save it as "
                "[C, H, W]"
            )
        self._stack = array[None] if array.ndim == 2 else array
        planes, height, width = self._stack.shape
        if not self._stack.size:
            raise damaged(path, f"an image of {height}×{width} pixels")
        super().__init__(path, ImageInfo(("0",), planes, height, width, array.dtype))

    def _decode(self, channel: int, planes: list[int]) -> np.ndarray:
        return np.asarray(self._stack[planes])

    def mapped(self, channel: int, plane: int) -> np.ndarray:
        """The plane where it lies in the file."""
        return self._stack[plane]


def _read_npy(path: Path) -> np.ndarray:
    """Array of a .npy file, memory-mapped; of a Cellpose `_seg.npy`, its masks.

    Pickled content is rebuilt from arrays, numbers and text alone: a file that refers to anything
    else is refused (ValueError) before any of it runs.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(file)
        if not dtype.hasobject:
            needed = math.prod(shape) * dtype.itemsize
            if needed > path.stat().st_size:
                raise damaged(path, f"{path.stat().st_size} bytes of at least {needed}")
            return np.load(path, mmap_mode="r")
        try:
            content = load_arrays(file)
        except NotHarmlessError as error:
            raise ValueError(
                f"{path}: is not read, {error}; save the masks as a TIFF file"
            ) from None
    if isinstance(content, PickledArray) and content.shape == ():
        (content,) = content.data
    masks = content.get("masks") if isinstance(content, dict) else None
    if not isinstance(masks, PickledArray):
        raise ValueError(f"{path}: has no array 'masks', as Cellpose's _seg.npy files have")
    return masks.array()
