"""Reduce a stack of focal planes to the planes that a network reads or predicts."""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import uniform_filter

from isl_jax.data.binning import as_dtype


def max_projection(stack: np.ndarray) -> np.ndarray:
    """Brightest value over the planes: [P, H, W] → [H, W], same dtype."""
    return stack.max(axis=0)


def mean_projection(stack: np.ndarray) -> np.ndarray:
    """Mean over the planes, rounded for integers: [P, H, W] → [H, W], same dtype."""
    return as_dtype(stack.mean(axis=0, dtype=np.float64), stack.dtype)


def sharpness(plane: np.ndarray, *, window: int = 7) -> np.ndarray:
    """Local sharpness of one plane [H, W] ≥ 0 → float32 [H, W], ≥ 1 (Helmli and Scherer, 2001).

    With μ the mean over the window × window neighbourhood (mirrored at the border), the ratio
    max(I, μ) / min(I, μ), 1 where either is 0, is averaged over the same neighbourhood.
    """
    values = plane.astype(np.float32)
    mean = uniform_filter(values, window, mode="mirror")
    small, large = np.minimum(values, mean), np.maximum(values, mean)
    ratio = np.divide(large, small, out=np.ones_like(large), where=small > 0)
    return uniform_filter(ratio, window, mode="mirror")


def focus_projection(stack: np.ndarray, *, proportion: float = 0.2, window: int = 7) -> np.ndarray:
    """Mean, at each pixel, of the planes that are sharpest there: [P, H, W] → [H, W], same dtype.

    `proportion` of the P planes are kept (at least one, rounded half up), ranked by `sharpness`;
    of equally sharp planes the lower one counts as the sharper.
    """
    keep = max(1, int(proportion * len(stack) + 0.5))
    ranking = np.stack([sharpness(plane, window=window) for plane in stack])
    total = np.zeros(stack.shape[1:], np.float64)
    for _ in range(keep):
        best = ranking.argmax(axis=0)[None]
        total += np.take_along_axis(stack, best, axis=0)[0]
        np.put_along_axis(ranking, best, -np.inf, axis=0)
    return as_dtype(total / keep, stack.dtype)


PROJECTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "max": max_projection,
    "mean": mean_projection,
    "focus": focus_projection,
}
