"""Scores of one predicted image against the truth: Pearson correlation (3) and IoU (4), and means.

Both scores take numpy or jax arrays and compute in the library of the first; with jax they can be
jitted and return a scalar array, with numpy a float.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class Score:
    """Mean and standard deviation (population, as the paper's "mean ± std") of `count` images."""

    mean: float
    std: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.std:.2f}" if self.count else "–"


def pearson(x: Any, y: Any) -> Any:
    """Pearson correlation coefficient of two images, equation (3).

    x, y: arrays of one shape, any real dtype (numpy computes in float64, jax in float32). Returns
    a value in −1..1; 0 where either image is constant, since the coefficient is then undefined.
    Raises ValueError on different shapes.
    """
    xp, x, y = _pair(x, y)
    dtype = np.float64 if xp is np else np.float32
    x, y = xp.asarray(x, dtype=dtype), xp.asarray(y, dtype=dtype)
    constant = (x.max() == x.min()) | (y.max() == y.min())
    # Unit maximum first: the squares of huge or tiny values would leave the float range.
    x, y = _centred(xp, x), _centred(xp, y)
    norm = xp.sqrt((x * x).sum()) * xp.sqrt((y * y).sum())
    value = xp.where(constant, 0.0, (x * y).sum() / xp.where(constant, 1.0, norm))
    value = xp.clip(value, -1.0, 1.0)
    return float(value) if xp is np else value


def iou(x: Any, y: Any) -> Any:
    """Intersection over union of two binary maps, equation (4).

    x, y: arrays of one shape; floating values (probabilities) count as foreground above 0.5,
    integers and booleans (masks, labels) where they are not 0. Returns a value in 0..1; 1 where
    both maps are empty. Raises ValueError on different shapes.
    """
    xp, x, y = _pair(x, y)
    x, y = _binary(xp, x), _binary(xp, y)
    intersection, union = (x & y).sum(), (x | y).sum()
    value = xp.where(union == 0, 1.0, intersection / xp.where(union == 0, 1, union))
    return float(value) if xp is np else value


def _pair(x: Any, y: Any) -> tuple[Any, Any, Any]:
    if not hasattr(x, "__array_namespace__"):
        x = np.asarray(x)
    xp = x.__array_namespace__()
    y = xp.asarray(y)
    if x.shape != y.shape:
        raise ValueError(f"images have shapes {list(x.shape)} and {list(y.shape)}; expected equal")
    if x.size == 0:
        raise ValueError("images are empty (no pixels); expected at least one pixel")
    return xp, x, y


def _centred(xp: Any, x: Any) -> Any:
    largest = abs(x).max()
    x = x / xp.where(largest == 0, 1.0, largest)
    x = x - x.mean()
    spread = abs(x).max()
    return x / xp.where(spread == 0, 1.0, spread)


def _binary(xp: Any, x: Any) -> Any:
    return x > 0.5 if xp.isdtype(x.dtype, "real floating") else x != 0


def mean_std(values: ArrayLike) -> Score:
    """Mean ± standard deviation of `values` `[images]`; NaN with count 0 when none is defined."""
    known = defined(values)
    if not known.size:
        return Score(math.nan, math.nan, 0)
    return Score(float(known.mean()), float(known.std()), int(known.size))


def defined(values: ArrayLike) -> np.ndarray:
    """The values that are not NaN, float64, flat."""
    array = np.asarray(values, np.float64).ravel()
    return array[~np.isnan(array)]
