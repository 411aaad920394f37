"""Stains to training targets and back: by two numbers of the data set, or by each field's own."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, inf, sqrt
from typing import Literal

import numpy as np

StainRule = Literal["field", "percentile", "dtype"]

# What a stain shows: the nucleus of each cell, or all of the cell.
Shows = Literal["nuclei", "cells"]
SHOWS: tuple[Shows, ...] = ("nuclei", "cells")
_NUCLEAR = re.compile(r"nucle|dapi|hoechst|draq|sytox|h2b|histone", re.IGNORECASE)

STAIN_RULES: tuple[StainRule, ...] = ("field", "percentile", "dtype")
# "At least one nucleus": this fraction of a crop (262 pixels of 512²) shows stain above background.
STAIN_FRACTION = 1e-3
# A target by field ends at so many times the typical signal: dead cells are brighter still.
BRIGHTEST = 3.0
# Pooled percentiles of wide dtypes are taken from a regular grid of about this many pixels a plane.
_SAMPLED_PIXELS = 1 << 18
# Standard deviations of a normal distribution in its median absolute deviation.
_ROBUST = 1.4826
# Values between cells lie so many times closer together than those of stained ones.
_DENSER = 3


@dataclass(frozen=True)
class StainScale:
    """What the numbers 0 and 1 of a target stand for: `low` and `high`, in raw units.

    Rules `percentile` and `dtype`: linear, and not clipped. Rule `field`: `low` is the background
    of one field, `high` its typical signal, and the target √clip((x − low) / (high − low), 0, 3),
    since brightness differs tenfold between fields, and between the nuclei of one; of a whole data
    set and of a model (0, 1), relative to whichever image it is. A field without signal has an
    infinite `high`: its target is 0. Raises ValueError for an empty scale or an unknown rule.
    """

    low: float
    high: float
    rule: StainRule = "percentile"

    def __post_init__(self) -> None:
        if self.rule not in STAIN_RULES:
            raise ValueError(f"stain scale {self.rule!r} is none of {', '.join(STAIN_RULES)}")
        if not self.high > self.low:
            raise ValueError(
                f"stain scale {self.low:g}..{self.high:g} is empty: the stain is constant over the "
                "training fields; check the stain channel, or use --stain_scale=dtype"
            )

    @property
    def limits(self) -> tuple[float, float]:
        """The target's range, which predictions are cut off at; infinite for percentiles."""
        return {
            "field": (0.0, sqrt(BRIGHTEST)),
            "dtype": (0.0, 1.0),
            "percentile": (-inf, inf),
        }[self.rule]

    @property
    def unit(self) -> str:
        """What `unscale` gives, in words."""
        if self.rule == "field":
            return "multiples of the image's typical signal (1), above its background (0)"
        return "raw intensities of the training images"

    def scale(self, stain: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """Raw units (any dtype and shape) → target, float32 (into `out`)."""
        out = np.subtract(stain, np.float32(self.low), out=out, dtype=np.float32)
        out *= np.float32(1.0 / (self.high - self.low))
        if self.rule == "field":
            return np.sqrt(np.clip(out, 0, BRIGHTEST, out=out), out=out)
        return out

    def unscale(self, scaled: np.ndarray) -> np.ndarray:
        """The inverse of `scale`: float32 in `unit`."""
        scaled = np.asarray(scaled, np.float32)
        if self.rule == "field":
            low, high = self.limits
            scaled = np.square(np.clip(scaled, np.float32(low), np.float32(high)))
        return scaled * np.float32(self.high - self.low) + np.float32(self.low)

    @classmethod
    def from_dtype(cls, dtype) -> "StainScale":
        """0..1 over the whole range of an integer dtype; ValueError for floats."""
        dtype = np.dtype(dtype)
        if not np.issubdtype(dtype, np.integer):
            raise ValueError(
                f"a {dtype} stain has no dtype maximum: use --stain_scale=percentile instead"
            )
        return cls(0.0, float(np.iinfo(dtype).max), "dtype")

    @classmethod
    def from_field(cls, stain: np.ndarray) -> "StainScale":
        """That of one field: its background, and the median of what stands above its threshold.

        The background is the median, or what lies between cells that cover most of the field
        (`stain_threshold`). No signal is less of it than "at least one nucleus": noise has bright
        pixels, too.
        """
        background, threshold = _background_and_threshold(stain)
        signal = np.asarray(stain)[stain > threshold]
        needed = ceil(STAIN_FRACTION * min(stain.size, 512**2))
        high = float(np.median(signal)) if signal.size >= needed else inf
        return cls(background, high, "field")

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
                samples.append(_sampled(plane).ravel())
        if samples:
            low, high = np.percentile(np.concatenate(samples), percentiles)
        else:
            low, high = _histogram_percentiles(histogram, percentiles)
        return cls(float(low), float(high))


# Of a data set, and of a model trained on it: relative to the image at hand.
RELATIVE = StainScale(0.0, 1.0, "field")


def shown_by(stain: str, study: str) -> Shows:
    """What a stain of this name shows in a study of `nucleus` or `cell`, as far as names tell."""
    return "nuclei" if study == "nucleus" or _NUCLEAR.search(stain) else "cells"


def stain_threshold(stain: np.ndarray) -> float:
    """Raw value above which a stain [H, W] counts as signal, relative to its own background.

    Median + 5 robust standard deviations, or + 10 % of the way to the 99.9 percentile if that is
    more: brightness differs tenfold between fields, and a field of noise alone stays below. Where
    the stain covers most of the field, the same above what lies between its cells.
    """
    return _background_and_threshold(stain)[1]


def _background_and_threshold(stain: np.ndarray) -> tuple[float, float]:
    values = np.sort(_sampled(stain), axis=None)
    background, bright = np.percentile(values, (50, 99.9))
    deviation = _ROBUST * np.median(np.abs(values - background))
    threshold = background + max(5 * deviation, 0.1 * (bright - background))
    # A stain may cover most of the field, and the median with it. Then the background is where
    # values lie closest together: far below, and nothing stands out from the median, or values lie
    # much closer there than about it.
    count = max(2, len(values) // 20)
    widths = values[count - 1 :] - values[: len(values) - count + 1]
    start = int(np.argmin(widths))
    darkest = np.median(values[start : start + count])
    deviation = _ROBUST * np.median(darkest - values[values <= darkest])
    margin = max(5 * deviation, 0.1 * (bright - darkest))
    steps = np.diff(values)
    step = steps.min(where=steps > 0, initial=inf)  # of integers, 1
    middle, narrow = len(widths) // 2, _DENSER * max(widths[start], step)
    has_gap = start < middle and widths[start:middle].max() > narrow  # between ground and cells
    stands_out = np.mean(values > threshold) >= STAIN_FRACTION
    if background > darkest + margin and has_gap and (widths[middle] > narrow or not stands_out):
        background, threshold = darkest, darkest + margin
    return float(background), float(threshold)


def _sampled(plane: np.ndarray) -> np.ndarray:
    """float64, on a regular grid of about _SAMPLED_PIXELS."""
    step = max(1, int(np.sqrt(plane.size / _SAMPLED_PIXELS)))
    return np.asarray(plane[::step, ::step], np.float64)


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
