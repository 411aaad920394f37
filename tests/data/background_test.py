import numpy as np
import pytest
from scipy import ndimage

from isl_jax.data.background import BLOCK, Background, measure_background
from isl_jax.data.normalisation import bands_of


def planes(height, width, seed=0):
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.random((2, height, width)), (0, 3, 3))
    return (40_000 * image).astype(np.uint16)


def test_bands_of_any_height_give_the_same():
    image = planes(100, 70)
    whole, spread = measure_background([image])
    for rows in (BLOCK, 3 * BLOCK):
        bands = (image[:, top : top + rows] for top in range(0, 100, rows))
        found, found_spread = measure_background(bands)
        np.testing.assert_array_equal(found.grid, whole.grid)
        np.testing.assert_array_equal(found_spread, spread)
    assert all(band.shape[1] % BLOCK == 0 for band in list(bands_of(image))[:-1])


def test_the_surface_is_linear_between_block_centres_and_level_beyond():
    grid = np.random.default_rng(0).random((3, 4, 2))
    height, width = 3 * BLOCK, 4 * BLOCK
    lines, before, share = Background(grid).lines(0, 0, height, width, np.float64)
    surface = lines[before] + share[:, None] * (lines[before + 1] - lines[before])
    rows, columns = ((np.arange(n) + 0.5) / BLOCK - 0.5 for n in (height, width))
    at = np.meshgrid(rows, columns, indexing="ij")
    for channel in range(2):
        expected = ndimage.map_coordinates(grid[..., channel], at, order=1, mode="nearest")
        np.testing.assert_allclose(surface.reshape(height, width, 2)[..., channel], expected)


def test_blocks_far_from_the_others_do_not_count():
    image = planes(640, 640)
    marked = image.copy()
    marked[:, :80, :80] = 65_000
    background, spread = measure_background([image])
    found, found_spread = measure_background([marked])
    np.testing.assert_allclose(found.grid[8:, 8:], background.grid[8:, 8:], rtol=0.02)
    np.testing.assert_allclose(found_spread, spread, rtol=0.05)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_has_no_spread(value):
    image = planes(40, 40).astype(np.float32)
    image[1, 30, 3] = value
    _, spread = measure_background([image])
    assert np.isfinite(spread[0]) and np.isnan(spread[1])
