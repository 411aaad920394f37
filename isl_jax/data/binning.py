"""Larger pixels: blocks of them averaged, of labels the most frequent one."""

import numpy as np


def bin_average(plane: np.ndarray, factor: int) -> np.ndarray:
    """Mean of factor × factor blocks, rounded for integers: [H, W] → [H//f, W//f], same dtype.

    Rows and columns that fill no block are left out at the bottom and right.
    """
    return as_dtype(_blocks(plane, factor).mean(axis=(1, 3), dtype=np.float64), plane.dtype)


def bin_labels(labels: np.ndarray, factor: int) -> np.ndarray:
    """Most frequent label of each factor × factor block: [H, W] → [H//f, W//f], same dtype.

    Of equally frequent labels the one met first (row by row) wins, so cells neither grow nor
    shrink on average.
    """
    blocks = _blocks(labels, factor).swapaxes(1, 2)
    blocks = blocks.reshape(*blocks.shape[:2], factor * factor)
    counts = np.stack(
        [(blocks == blocks[..., k : k + 1]).sum(-1) for k in range(factor * factor)], axis=-1
    )
    return np.take_along_axis(blocks, counts.argmax(-1)[..., None], axis=-1)[..., 0]


def as_dtype(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Averages in the dtype that they were made from, rounded for integers."""
    if np.issubdtype(dtype, np.integer):
        values = np.rint(values)
    return values.astype(dtype)


def _blocks(plane: np.ndarray, factor: int) -> np.ndarray:
    height, width = plane.shape[0] // factor, plane.shape[1] // factor
    return plane[: height * factor, : width * factor].reshape(height, factor, width, factor)
