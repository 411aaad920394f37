"""Normalised tiles of an image of any size: planned, cut, and blended once predicted.

A tile that ends inside the image sees zeros where the image goes on, so its outputs are wrong near
that end. `halo` pixels there are thrown away; over the next `blend` pixels the two neighbours fade
into each other. Tiles begin at multiples of the network's stride, so that its pooling grid is the
one of the whole image. A side that fits into one tile is not cut, and exact by construction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from isl_jax.data.background import measure_background
from isl_jax.data.normalisation import Levels, Normalisation, bands_of, flat_levels
from isl_jax.inference.large import ImageLike, release
from isl_jax.models.architecture import STRIDE

# Tiled equals untiled within 1e-4 of the output's unit from here on (docs/predict.md).
HALO = 256
BLEND = 32
TILE = 2304
# Statistics are taken over bands of this many pixels a plane.
_BAND_PIXELS = 1 << 20


@dataclass(frozen=True)
class Span:
    """A tile along one axis: it reads `start..start+size`, and gives `low..high` of the image.

    `fade_in` and `fade_out` are the pixels at either end of `low..high` that the neighbours share.
    """

    start: int
    size: int
    low: int
    high: int
    fade_in: int
    fade_out: int

    def weights(self) -> np.ndarray:
        """Share of this tile in each pixel of `low..high`, float32; neighbours add up to 1."""
        weights = np.ones(self.high - self.low, np.float32)
        if self.fade_in:
            weights[: self.fade_in] = _ramp(self.fade_in)
        if self.fade_out:
            weights[weights.size - self.fade_out :] = 1 - _ramp(self.fade_out)
        return weights


@dataclass(frozen=True)
class Tile:
    """A tile of an image: its spans along rows and columns."""

    rows: Span
    columns: Span


def _ramp(length: int) -> np.ndarray:
    return ((np.arange(length) + 0.5) / length).astype(np.float32)


def padded(length: int, step: int = STRIDE) -> int:
    """The next multiple of `step`."""
    return -(-length // step) * step


def plan_axis(
    length: int, *, tile: int = TILE, halo: int = HALO, blend: int = BLEND
) -> tuple[Span, ...]:
    """Tiles along a side of `length` pixels, in order.

    A side of up to `tile` pixels is one span of its own length, rounded up to a multiple of 32.
    Longer sides get spans of exactly `tile` pixels, spread evenly, the last ending with the image.
    Raises ValueError if `tile` is no multiple of 32 or leaves nothing between two halos.
    """
    if length < 1:
        raise ValueError(f"image side of {length} pixels; expected at least 1")
    step = (tile - 2 * halo - blend) // STRIDE
    if tile % STRIDE or min(halo, blend) < 0 or step * STRIDE < max(STRIDE, 2 * blend):
        least = padded(2 * halo + blend + max(STRIDE, 2 * blend))
        raise ValueError(
            f"tile={tile}, halo={halo}, blend={blend}: the tile must be a multiple of {STRIDE} "
            f"and, for this halo, at least {least} pixels"
        )
    total = padded(length)
    if total <= tile:
        return (Span(0, total, 0, length, 0, 0),)
    # Spread evenly: what the last tile would read twice goes into everybody's halo.
    gaps = (total - tile) // STRIDE
    count = -(-gaps // step)
    starts = [index * gaps // count * STRIDE for index in range(count + 1)]
    # Neighbours meet in the middle of what both of them read.
    seams = [(after + before + tile) // 2 for before, after in pairwise(starts)]
    lows = [0, *(seam - blend // 2 for seam in seams)]
    highs = [*(seam - blend // 2 + blend for seam in seams), length]
    last = len(starts) - 1
    return tuple(
        Span(start, tile, low, high, blend if i else 0, blend if i < last else 0)
        for i, (start, low, high) in enumerate(zip(starts, lows, highs, strict=True))
    )


def plan(
    height: int, width: int, *, tile: int = TILE, halo: int = HALO, blend: int = BLEND
) -> tuple[tuple[Tile, ...], ...]:
    """Rows of tiles that cover an image; all tiles of one plan have one shape."""
    columns = plan_axis(width, tile=tile, halo=halo, blend=blend)
    rows = plan_axis(height, tile=tile, halo=halo, blend=blend)
    return tuple(tuple(Tile(row, column) for column in columns) for row in rows)


def cut(image: ImageLike, tile: Tile) -> np.ndarray:
    """The pixels that a tile reads, `[C, h, w]` in the image's dtype; as many as there are."""
    _, height, width = image.shape
    rows, columns = tile.rows, tile.columns
    return np.asarray(
        image[
            slice(None),
            slice(rows.start, min(rows.start + rows.size, height)),
            slice(columns.start, min(columns.start + columns.size, width)),
        ]
    )


def fill_up(pixels: np.ndarray, tile: Tile) -> np.ndarray:
    """The pixels `[h, w, C]` of a tile, reflected where it goes beyond the image.

    That is at the bottom and right, to a multiple of 32, as the network itself does with a whole
    image.
    """
    missing = [
        (0, span.size - size)
        for span, size in zip((tile.rows, tile.columns), pixels.shape[:2], strict=True)
    ]
    return np.pad(pixels, (*missing, (0, 0)), mode="reflect") if any(map(any, missing)) else pixels


def blend_row(tiles: Sequence[Tile], outputs: Iterator[np.ndarray], width: int) -> np.ndarray:
    """Join the outputs `[h, w, K]` of one row of tiles: `[K, rows, width]`, weighted along columns.

    The rows are those the tiles give, `low..high`; fading them into the next row is left to
    `blend_rows`.
    """
    band: np.ndarray | None = None
    for tile in tiles:
        output = next(outputs)  # the iterator goes on with the next row
        rows, columns = tile.rows, tile.columns
        given = output[
            rows.low - rows.start : rows.high - rows.start,
            columns.low - columns.start : columns.high - columns.start,
        ]
        if band is None:
            band = np.zeros((output.shape[-1], rows.high - rows.low, width), np.float32)
        weights = columns.weights()
        plain = columns.fade_in == columns.fade_out == 0
        for k in range(output.shape[-1]):
            weighted = given[..., k] if plain else given[..., k] * weights
            band[k, :, columns.low : columns.high] += weighted
    assert band is not None
    return band


def blend_rows(
    spans: Sequence[Span], bands: Iterator[np.ndarray]
) -> Iterator[tuple[int, np.ndarray]]:
    """Fade each band `[K, rows, W]` into the next; yields (first row, rows that are finished)."""
    rest: np.ndarray | None = None
    for span, band in zip(spans, bands, strict=True):
        if span.fade_in or span.fade_out:
            band *= span.weights()[None, :, None]
        if rest is not None:
            band[:, : span.fade_in] += rest
        finished = band.shape[1] - span.fade_out
        yield span.low, band[:, :finished]
        rest = band[:, finished:].copy()


@dataclass(frozen=True)
class StandardisedImage:
    """An image beside what normalises it: tiles come out as the network takes them.

    `image` `[C, H, W]`; `levels`, those of the whole image. `ready` is the only tile, where there
    is only one and it has been made ahead of time.
    """

    image: ImageLike
    levels: Levels
    ready: np.ndarray | None = None

    def tile(self, tile: Tile) -> np.ndarray:
        """Normalised pixels `[h, w, C]` float32 of a tile."""
        shape = (tile.rows.size, tile.columns.size)
        if self.ready is not None and self.ready.shape[:2] == shape:
            return self.ready
        pixels = np.ascontiguousarray(np.moveaxis(cut(self.image, tile), 0, -1))
        top, left = tile.rows.start, tile.columns.start
        return fill_up(self.levels.apply(pixels, top=top, left=left), tile)


def measured(image: ImageLike, normalisation: Normalisation) -> Levels:
    """What normalises an image, read in bands of rows; NaN where a plane holds what is not finite.

    The same as `data.normalisation.measure`, up to float64 rounding.
    """
    if normalisation.kind == "flat":
        return flat_levels(normalisation, *measure_background(_released_bands(image)))
    return Levels(*statistics(image), normalisation.clip)


def _released_bands(image: ImageLike) -> Iterator[np.ndarray]:
    for band in bands_of(image):
        yield band
        release(image)


def statistics(image: ImageLike) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each plane, `[C]` float64, raw units, read in bands of rows.

    The same as `data.normalisation.plane_statistics` of each plane, up to float64 rounding.
    """
    channels, height, width = image.shape
    rows = max(1, _BAND_PIXELS // width)
    total, squares = np.zeros(channels), np.zeros(channels)
    # About a value near the mean, so that large offsets cost no digits.
    first = np.asarray(image[:, :rows, :])
    offset = first.mean(axis=(1, 2), dtype=np.float64)
    for top in range(0, height, rows):
        band = np.asarray(image[:, top : top + rows, :], np.float64) - offset[:, None, None]
        total += band.sum(axis=(1, 2))
        squares += np.square(band, out=band).sum(axis=(1, 2))
        release(image)
    mean = total / (height * width)
    variance = np.maximum(squares / (height * width) - mean**2, 0)
    return mean + offset, np.sqrt(variance)
