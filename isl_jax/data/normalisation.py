"""Standardise label-free planes, and scale stains to 0..1 and back."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# Pooled percentiles of wide dtypes are taken from a regular grid of about this many pixels a plane.
_SAMPLED_PIXELS = 1 << 18


def plane_statistics(plane: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of one plane [H, W], accumulated in float64, in raw units."""
    mean = float(plane.mean(dtype=np.float64))
    # Row blocks keep the float64 copy small; two passes keep the variance exact for large offsets.
    squares = sum(
        float(np.square(plane[row : row + 256].astype(np.float64) - mean).sum())
        for row in range(0, plane.shape[0], 256)
    )
    return mean, float(np.sqrt(squares / plane.size))


def standardise(
    image: np.ndarray, mean, std, *, pixels: int | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """(x − mean) / max(std, 1/√pixels) for each channel (section 2 of the paper's supplement).

    image [H, W, C] of any real dtype; mean and std [C] in raw units; `pixels` is the number of
    pixels that the statistics were taken over (default H·W: give it for a crop of a larger field).
    Returns float32 [H, W, C]: `out`, contiguous, if it is given.
    """
    height, width, _ = image.shape
    out = np.empty(image.shape, np.float32) if out is None else out
    floor = 1.0 / np.sqrt(pixels or height * width)
    gain = 1.0 / np.maximum(np.asarray(std, np.float64), floor)
    # Up to 24 bits float32 holds raw values exactly; wider ones are subtracted in float64.
    wide = image.dtype.itemsize > 2 and image.dtype != np.float32
    dtype = np.float64 if wide else np.float32
    # Whole rows at a time: an inner loop over three channels costs four times as much.
    rows, flat = image.reshape(height, -1), out.reshape(height, -1)
    offset = np.tile(np.asarray(mean, dtype), width)
    np.subtract(rows, offset, out=flat, dtype=dtype, casting="same_kind")
    flat *= np.tile(gain.astype(np.float32), width)
    return out


@dataclass(frozen=True)
class StainScale:
    """Linear map of a stain's raw units to the training target: low → 0, high → 1, not clipped."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.high > self.low:
            raise ValueError(
                f"stain scale {self.low:g}..{self.high:g} is empty: the stain is constant over the "
                "training fields; check the stain channel, or use --stain_scale=dtype"
            )

    def scale(self, stain: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """Raw units (any dtype and shape) → float32, 0 at `low` and 1 at `high` (into `out`)."""
        out = np.subtract(stain, np.float32(self.low), out=out, dtype=np.float32)
        out *= np.float32(1.0 / (self.high - self.low))
        return out

    def unscale(self, scaled: np.ndarray) -> np.ndarray:
        """The inverse of `scale`: float32 in raw units."""
        return np.asarray(scaled, np.float32) * np.float32(self.high - self.low) + np.float32(
            self.low
        )

    @classmethod
    def from_dtype(cls, dtype) -> "StainScale":
        """0..1 over the whole range of an integer dtype; ValueError for floats."""
        dtype = np.dtype(dtype)
        if not np.issubdtype(dtype, np.integer):
            raise ValueError(
                f"a {dtype} stain has no dtype maximum: use --stain_scale=percentile instead"
            )
        return cls(0.0, float(np.iinfo(dtype).max))

    @classmethod
    def from_percentiles(
        cls, planes: Iterable[np.ndarray], percentiles: tuple[float, float] = (0.1, 99.9)
    ) -> "StainScale":
        """0..1 between two percentiles of the pixels of all planes together.

        Exact for 8- and 16-bit integers (one histogram, one pass, one plane in memory at a time);
        other dtypes are sampled on a regular grid of about 2¹⁸ pixels a plane.
        """
        histogram = np.zeros(1 << 16, np.int64)
        samples = []
        for plane in planes:
            if plane.dtype in (np.uint8, np.uint16):
                histogram += np.bincount(np.ravel(plane), minlength=1 << 16)
            else:
                step = max(1, int(np.sqrt(plane.size / _SAMPLED_PIXELS)))
                samples.append(np.asarray(plane[::step, ::step], np.float64).ravel())
        if samples:
            low, high = np.percentile(np.concatenate(samples), percentiles)
        else:
            low, high = _histogram_percentiles(histogram, percentiles)
        return cls(float(low), float(high))


def _histogram_percentiles(histogram: np.ndarray, percentiles) -> np.ndarray:
    """numpy's linearly interpolated percentiles, from counts of the integers 0, 1, 2, …"""
    cumulative = np.cumsum(histogram)
    position = np.asarray(percentiles) / 100 * (cumulative[-1] - 1)
    lower = np.floor(position).astype(np.int64)
    below = np.searchsorted(cumulative, lower, side="right")
    above = np.searchsorted(
        cumulative, np.minimum(lower + 1, int(cumulative[-1]) - 1), side="right"
    )
    return below + (position - lower) * (above - below)
