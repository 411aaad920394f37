"""The background of a plane as a smooth surface, and its spread about it, both robust.

A plane is reduced to the mean and the variance of blocks of pixels, in one pass; all else happens
on that coarse grid, so that memory stays small whatever the size of the image. Blocks far from all
others (dark corners outside the field of view, large debris) are left out, what remains is blurred
widely, and between the centres of the blocks the surface is linear.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from isl_jax.compiled import compiled

# In pixels of the prepared image: side of a block, and standard deviation of the blur, which is
# wide beside a cell and narrow beside the field of view.
BLOCK, BLUR = 16, 64
# A block is left out where its mean is more standard deviations of the kept ones away from theirs.
OUTLIER, ROUNDS = 3.0, 4
# A block counts with at most so many times the mean spread.
BRIGHTEST = 3.0


@dataclass(frozen=True)
class Background:
    """A surface given at the centres of blocks: float64 [rows, columns, C], in raw units."""

    grid: np.ndarray

    def lines(
        self, top: int, left: int, height: int, width: int, dtype: type
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The surface in a window of the image: between which lines each of its rows lies.

        Returns lines [k + 1, width · C], for each row of the window the line before it [height],
        and how far on it is to the next one, 0..1 [height]; lines and shares in dtype. What a pixel
        gets depends on its place in the image alone.
        """
        before, share = _between(np.arange(left, left + width), self.grid.shape[1])
        rows, rows_share = _between(np.arange(top, top + height), self.grid.shape[0])
        grid = self.grid[rows[0] : rows[-1] + 2]
        lines = np.empty((len(grid) + 1, width, grid.shape[2]), dtype)
        _fill_lines(np.ascontiguousarray(grid), before, share, lines)
        return lines.reshape(len(lines), -1), rows - rows[0], rows_share.astype(dtype)

    def repeated(self, count: int) -> "Background":
        """That of one plane in the place of several."""
        return Background(np.repeat(self.grid, count, axis=-1))


@compiled()
def _fill_lines(grid, before, share, lines):
    """Rows of centres, linear between them; the last one stands for what is below it, too."""
    last = grid.shape[1] - 1
    for row in range(len(lines)):
        centres = grid[min(row, len(grid) - 1)]
        for x in range(len(before)):
            at, following, part = before[x], min(before[x] + 1, last), share[x]
            for c in range(grid.shape[2]):
                lines[row, x, c] = centres[at, c] + part * (centres[following, c] - centres[at, c])


def _between(index: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For pixels: the block centre before each, and how far on it is to the next one, 0..1.

    Beyond the first and the last centre the surface goes on level.
    """
    position = np.clip((index + 0.5) / BLOCK - 0.5, 0, count - 1)
    low = np.minimum(position.astype(int), max(count - 2, 0))
    return low, position - low


def measure_background(bands: Iterable[np.ndarray]) -> tuple[Background, np.ndarray]:
    """Background and spread [C] (raw units) of an image that comes in bands of rows [C, h, W].

    All bands but the last hold whole blocks of BLOCK rows. The spread is NaN where a plane holds
    what is not finite.
    """
    offset = None
    means, variances = [], []
    for band in bands:
        if offset is None:  # near the mean, so that large offsets cost no digits
            offset = band[:, :BLOCK].mean(axis=(1, 2), dtype=np.float64)[:, None, None]
        with np.errstate(invalid="ignore"):  # of infinite values
            mean, square = _block_means(np.ascontiguousarray(band - offset))
            means.append(mean)
            variances.append(square - mean**2)
    assert offset is not None
    means, variances = np.concatenate(means, axis=1), np.concatenate(variances, axis=1)
    found = [_surface(*plane) for plane in zip(means, np.maximum(variances, 0), strict=True)]
    grid = np.stack([surface for surface, _ in found], axis=-1)
    grid += offset[:, 0, 0]
    return Background(grid), np.array([spread for _, spread in found])


@compiled()
def _block_means(band):
    """Means of blocks, and of their squares: float64 [C, h, W] → twice [C, rows, columns].

    The last blocks may be smaller.
    """
    channels, height, width = band.shape
    shape = channels, (height + BLOCK - 1) // BLOCK, (width + BLOCK - 1) // BLOCK
    means, squares = np.zeros(shape), np.zeros(shape)
    for c in range(channels):
        for y in range(height):
            row = band[c, y]
            for column in range(shape[2]):
                total, square = 0.0, 0.0
                for x in range(column * BLOCK, min((column + 1) * BLOCK, width)):
                    total += row[x]
                    square += row[x] * row[x]
                means[c, y // BLOCK, column] += total
                squares[c, y // BLOCK, column] += square
        for row in range(shape[1]):
            rows = min((row + 1) * BLOCK, height) - row * BLOCK
            for column in range(shape[2]):
                count = rows * (min((column + 1) * BLOCK, width) - column * BLOCK)
                means[c, row, column] /= count
                squares[c, row, column] /= count
    return means, squares


def _surface(means: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, float]:
    """Background [rows, columns] of one plane and its spread, from its blocks."""
    if not np.isfinite(variances).all():
        return means, np.nan
    keep = np.ones(means.shape, bool)
    for _ in range(ROUNDS):
        middle, deviation = means[keep].mean(), means[keep].std()
        keep = np.abs(means - middle) <= OUTLIER * deviation + 1e-9 * abs(middle)
    middle = means[keep].mean()
    sigma = BLUR / BLOCK
    weight = ndimage.gaussian_filter(keep.astype(float), sigma, mode="constant")
    around = ndimage.gaussian_filter(np.where(keep, means - middle, 0), sigma, mode="constant")
    # Far from all kept blocks: their mean.
    surface = middle + around / np.maximum(weight, 1e-6)
    deviations = np.sqrt(variances + (means - surface) ** 2)[keep]
    spread = deviations.mean()
    for _ in range(ROUNDS):
        spread = np.minimum(deviations, BRIGHTEST * spread).mean()
    return surface, float(spread)
