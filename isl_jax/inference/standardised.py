"""Images beside what standardises them: mean and standard deviation of each whole plane."""

from dataclasses import dataclass

import numpy as np

from isl_jax.data.normalisation import standardise
from isl_jax.inference.scratch import release
from isl_jax.inference.tiling import ImageLike, Tile, cut

# Statistics are taken over bands of this many pixels a plane.
_BAND_PIXELS = 1 << 20


@dataclass(frozen=True)
class StandardisedImage:
    """An image beside what standardises it: tiles come out as the network takes them.

    `image` `[C, H, W]`; `mean` and `std` `[C]`, those of the whole image. `ready` is the only tile,
    where there is only one and it has been made ahead of time.
    """

    image: ImageLike
    mean: np.ndarray
    std: np.ndarray
    ready: np.ndarray | None = None

    def tile(self, tile: Tile) -> np.ndarray:
        """Standardised pixels `[h, w, C]` float32 of a tile."""
        shape = (tile.rows.size, tile.columns.size)
        if self.ready is not None and self.ready.shape[:2] == shape:
            return self.ready
        _, height, width = self.image.shape
        planes = np.moveaxis(cut(self.image, tile), 0, -1)
        pixels = np.ascontiguousarray(planes)
        return standardise(pixels, self.mean, self.std, pixels=height * width)


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
