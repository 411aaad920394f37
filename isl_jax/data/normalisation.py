"""How raw label-free planes become what a network reads: standardised as in the paper, or flat.

The choice is made when a data set is prepared, and travels with it and with every model trained on
it. Whatever is measured is measured on the whole image: crops and tiles of it then get the very
numbers that they have in the whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from isl_jax.compiled import compiled
from isl_jax.data.background import BLOCK, Background, measure_background

NormalisationKind = Literal["standardise", "flat"]
# Pixels of a plane that are in float64 at once.
_BAND_PIXELS = 1 << 20


@dataclass(frozen=True)
class Normalisation:
    """What is made of each plane; results beyond ± `clip` are cut off there (None: nowhere).

    `standardise`: (x − mean) / standard deviation of the whole plane (section 2 of the paper's
    supplement). `flat`: (x − background) / spread, both robust and the background a smooth surface
    (`background`). Raises ValueError for another word or a clip that is not positive.
    """

    kind: NormalisationKind = "standardise"
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"normalisation {self.kind!r} is none of {', '.join(KINDS)}")
        if self.clip is not None and not 0 < self.clip < float("inf"):
            raise ValueError(f"normalisation clips at {self.clip}; expected a number above 0")

    @classmethod
    def from_json(cls, stored: Any) -> "Normalisation":
        """Inverse of `dataclasses.asdict`; the paper's where older files have nothing or a text."""
        return cls(**stored) if isinstance(stored, dict) else PAPER


KINDS: tuple[NormalisationKind, ...] = ("standardise", "flat")
# The named choices. The paper clips nothing. A flat plane's ± 4 holds all of its cells; beyond it
# are debris, dead cells and what lies outside the field of view, which no crop prepares for.
NORMALISATIONS = {
    "standardise": Normalisation("standardise"),
    "flat": Normalisation("flat", clip=4.0),
}
PAPER = NORMALISATIONS["standardise"]


@dataclass(frozen=True)
class Levels:
    """What normalises the planes of one image: numbers [C] in raw units, measured on all of it.

    `background` stands in the place of `mean` where planes are made flat; `spread` is what a result
    of 1 stands for.
    """

    mean: np.ndarray
    spread: np.ndarray
    clip: float | None = None
    background: Background | None = None

    def apply(
        self, image: np.ndarray, *, top: int = 0, left: int = 0, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Normalise a window [h, w, C] of any real dtype that begins at (top, left) of its image.

        Returns float32 [h, w, C]: `out`, contiguous, if it is given. Constant planes become 0.
        """
        out = np.empty(image.shape, np.float32) if out is None else out
        height, width, _ = image.shape
        # Up to 24 bits float32 holds raw values exactly; wider ones are subtracted in float64.
        wide = image.dtype.itemsize > 2 and image.dtype != np.float32
        dtype = np.float64 if wide else np.float32
        # Whole rows: an inner loop over three channels costs four times as much.
        rows, flat = image.reshape(height, -1), out.reshape(height, -1)
        gain = np.tile(_gain(self.mean, self.spread, image.dtype), width)
        if self.background is None and self.clip is None:
            offset = np.tile(np.asarray(self.mean, dtype), width)
            # Two calls for a crop: loader threads need the interpreter for each.
            np.subtract(rows, offset, out=flat, dtype=dtype, casting="same_kind")
            flat *= gain
            return out
        background = self.background or Background(np.asarray(self.mean, np.float64)[None, None])
        lines, before, share = background.lines(top, left, height, width, dtype)
        limit = np.float32(np.inf if self.clip is None else self.clip)
        # A few rows at a time: they stay in the cache.
        for start in range(0, height, BLOCK):
            band = slice(start, start + BLOCK)
            raw = rows[band].astype(dtype)
            _normalise(raw, lines, before[band], share[band], gain, limit, flat[band])
        return out

    def repeated(self, count: int) -> "Levels":
        """Those of one plane in the place of several."""
        background = self.background and self.background.repeated(count)
        mean, spread = np.repeat(self.mean, count), np.repeat(self.spread, count)
        return Levels(mean, spread, self.clip, background)


def measure(normalisation: Normalisation, image: np.ndarray) -> Levels:
    """Levels of an image [H, W, C] that is in memory or mapped."""
    if normalisation.kind == "flat":
        background, spread = measure_background(bands_of(np.moveaxis(image, -1, 0)))
        return flat_levels(normalisation, background, spread)
    statistics = np.array([plane_statistics(image[..., c]) for c in range(image.shape[-1])])
    return Levels(statistics[:, 0], statistics[:, 1], normalisation.clip)


def flat_levels(normalisation: Normalisation, background: Background, spread) -> Levels:
    """Levels of a flat image from what `measure_background` found."""
    mean = background.grid.mean(axis=(0, 1))
    return Levels(mean, np.asarray(spread), normalisation.clip, background)


def bands_of(image: Any) -> Iterator[np.ndarray]:
    """Bands of rows [C, h, W] of an image [C, H, W] that can be sliced.

    Each holds whole blocks of the background, and about 2²⁰ pixels a plane.
    """
    _, height, width = image.shape
    rows = max(1, _BAND_PIXELS // (width * BLOCK)) * BLOCK
    for top in range(0, height, rows):
        yield np.asarray(image[:, top : top + rows, :])


def plane_statistics(plane: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of one plane [H, W], accumulated in float64, in raw units."""
    mean = float(plane.mean(dtype=np.float64))
    # Row blocks keep the float64 copy small; two passes keep the variance exact for large offsets.
    squares = sum(
        float(np.square(plane[row : row + 256].astype(np.float64) - mean).sum())
        for row in range(0, plane.shape[0], 256)
    )
    return mean, float(np.sqrt(squares / plane.size))


@compiled()
def _normalise(raw, lines, before, share, gain, limit, out):
    """(x − background) · gain, cut off at ± limit, row by row."""
    for y in range(raw.shape[0]):
        line, following, part = lines[before[y]], lines[before[y] + 1], share[y]
        for x in range(raw.shape[1]):
            background = line[x] + part * (following[x] - line[x])
            value = np.float32(raw[y, x] - background) * gain[x]
            out[y, x] = min(max(value, -limit), limit)


def _gain(mean, spread, dtype: np.dtype) -> np.ndarray:
    """1 / spread, float32 [C]; 0 for constant planes: whose spread is but rounding of the dtype.

    Nothing else is special, so that the unit of an image does not matter.
    """
    mean, spread = np.abs(np.asarray(mean, np.float64)), np.asarray(spread, np.float64)
    eps = np.finfo(dtype if np.issubdtype(dtype, np.floating) else np.float64).eps
    constant = ~(spread > eps * mean)
    return np.where(constant, 0, 1 / np.where(constant, 1, spread)).astype(np.float32)
