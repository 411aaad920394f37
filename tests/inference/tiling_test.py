"""Tiles: cover everything once, begin on the network's grid, and leave no seam."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isl_jax.data.normalisation import NORMALISATIONS, measure, plane_statistics
from isl_jax.inference.tiling import (
    StandardisedImage,
    blend_row,
    blend_rows,
    cut,
    fill_up,
    measured,
    plan,
    plan_axis,
    statistics,
)


@given(
    length=st.integers(1, 3000),
    tile=st.integers(5, 40).map(lambda n: 32 * n),
    halo=st.integers(0, 64),
    blend=st.sampled_from([0, 8, 32]),
)
def test_spans_cover_a_side_with_weights_that_add_up_to_one(length, tile, halo, blend):
    if tile < 2 * halo + blend + max(32, 2 * blend) + 31:
        return
    spans = plan_axis(length, tile=tile, halo=halo, blend=blend)
    total = np.zeros(length)
    end = -(-length // 32) * 32
    for span in spans:
        assert span.start % 32 == 0 and span.size % 32 == 0
        assert span.size == min(tile, end) and span.start + span.size <= end
        total[span.low : span.high] += span.weights()
        # What is given lies the halo away from every end inside the image.
        assert span.start == 0 or span.low - span.start >= halo
        assert span.start + span.size == end or span.start + span.size - span.high >= halo
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_tiles_that_agree_give_the_image_back():
    rng = np.random.default_rng(0)
    image = rng.random((2, 437, 310)).astype(np.float32)
    rows = plan(437, 310, tile=160, halo=16, blend=32)
    assert len(rows) > 2 and len(rows[0]) > 2
    outputs = (np.moveaxis(cut(image, tile), 0, -1) for row in rows for tile in row)
    bands = (blend_row(row, outputs, 310) for row in rows)
    joined = np.full_like(image, np.nan)
    for first, band in blend_rows([row[0].rows for row in rows], bands):
        joined[:, first : first + band.shape[1]] = band
    np.testing.assert_allclose(joined, image, atol=1e-6)


def test_tiles_that_disagree_fade_into_each_other():
    rows = plan(100, 400, tile=256, halo=16, blend=32)
    assert len(rows[0]) == 2
    outputs = (np.full((128, 256, 1), value, np.float32) for value in (0, 1))
    band = blend_row(rows[0], outputs, 400)[0]
    steps = np.diff(band[0])
    assert steps.min() >= 0 and steps.max() < 1.01 / 32


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 70), (32, 33)])
def test_small_images_are_reflected_to_the_grid(height, width):
    image = np.arange(height * width).reshape(1, height, width)
    ((tile,),) = plan(height, width)
    pixels = fill_up(np.moveaxis(cut(image, tile), 0, -1), tile)
    assert pixels.shape[0] % 32 == 0 and pixels.shape[1] % 32 == 0
    np.testing.assert_array_equal(pixels[:height, :width, 0], image[0])
    np.testing.assert_array_equal(np.unique(pixels), np.unique(image))


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_tiles_are_normalised_as_the_whole_bit_by_bit(kind, make_planes):
    image = make_planes(300, 210)
    levels = measured(image, NORMALISATIONS[kind])
    whole = levels.apply(np.moveaxis(image, 0, -1))
    normalised = StandardisedImage(image, levels)
    for row in plan(300, 210, tile=128, halo=16, blend=16):
        for tile in row:
            pixels = normalised.tile(tile)
            top, left = tile.rows.start, tile.columns.start
            inside = whole[top : top + 128, left : left + 128]
            height, width, _ = inside.shape
            assert pixels.shape == (128, 128, 3)
            np.testing.assert_array_equal(pixels[:height, :width], inside)
            np.testing.assert_array_equal(pixels, fill_up(inside, tile))


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_levels_in_bands_are_those_of_a_prepared_field(kind, make_planes, monkeypatch):
    image = make_planes(150, 210)
    expected = measure(NORMALISATIONS[kind], np.moveaxis(image, 0, -1))
    monkeypatch.setattr("isl_jax.data.normalisation._BAND_PIXELS", 5000)
    monkeypatch.setattr("isl_jax.inference.tiling._BAND_PIXELS", 5000)
    levels = measured(image, NORMALISATIONS[kind])
    np.testing.assert_allclose(levels.spread, expected.spread, rtol=1e-12)
    if kind == "flat":
        assert levels.background is not None and expected.background is not None
        np.testing.assert_array_equal(levels.background.grid, expected.background.grid)


@pytest.mark.parametrize("tile", [100, 512])
def test_tiles_too_small_for_the_halo_are_refused(tile):
    with pytest.raises(ValueError, match="multiple of 32"):
        plan_axis(1000, tile=tile, halo=256)


def test_statistics_in_bands_are_those_of_the_planes(monkeypatch):
    monkeypatch.setattr("isl_jax.inference.tiling._BAND_PIXELS", 1000)
    rng = np.random.default_rng(0)
    image = rng.normal(1e6, 3, (2, 90, 130))
    mean, std = statistics(image)
    expected = np.array([plane_statistics(plane) for plane in image]).T
    np.testing.assert_allclose([mean, std], expected, rtol=1e-12)
