"""NumPy files: plain arrays, and Cellpose's pickled `_seg.npy` without running what it contains."""

import pickle
from pathlib import Path

import numpy as np

from isl_jax.ingest.images import ImageInfo, damaged

# All that a dictionary of arrays, numbers and text needs; nothing here acts when it is called.
_HARMLESS = {
    (module, name)
    for package in ("numpy.core", "numpy._core")
    for module, name in (
        (f"{package}.multiarray", "_reconstruct"),
        (f"{package}.multiarray", "scalar"),
        (f"{package}.numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict")}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not an array")
        return super().find_class(module, name)


def read_npy(path: Path) -> np.ndarray:
    """Array of a .npy file, memory-mapped; of a Cellpose `_seg.npy`, its masks.

    Pickled content is rebuilt from arrays, numbers and text alone: a file that refers to anything
    else is refused (ValueError) before any of it runs.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            if not header(file)[2].hasobject:
                return np.load(path, mmap_mode="r")
            content = _ArraysOnly(file).load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: is not read, {error}; save the masks as a TIFF file") from None
    except (ValueError, EOFError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise damaged(path, error) from error
    content = content.item() if isinstance(content, np.ndarray) and content.shape == () else content
    masks = content.get("masks") if isinstance(content, dict) else None
    if not isinstance(masks, np.ndarray):
        raise ValueError(f"{path}: has no array 'masks', as Cellpose's _seg.npy files have")
    return masks


def inspect_npy(path: Path) -> ImageInfo:
    """Shape and dtype of a .npy image [H, W] or [P, H, W]."""
    array = read_npy(path)
    if array.ndim not in (2, 3) or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{path}: holds {array.dtype} {list(array.shape)}, expected numbers [H, W] or [P, H, W]"
        )
    height, width = array.shape[-2:]
    return ImageInfo(("0",), len(array) if array.ndim == 3 else 1, height, width, array.dtype)
