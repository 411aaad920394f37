import dataclasses

import numpy as np
import pytest

from isl_jax.data.background import BLOCK
from isl_jax.data.normalisation import (
    NORMALISATIONS,
    PAPER,
    Levels,
    Normalisation,
    measure,
    plane_statistics,
)

FLAT = NORMALISATIONS["flat"]


def scene(height=150, width=203, channels=2, seed=0):
    """Planes [H, W, C] of blobs on noise, uneven light, and a dark corner."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = 20_000 + 5.0 * y + 2.0 * x + rng.normal(0, 200, (channels, height, width))
    for _ in range(12):
        row, column = rng.integers(0, (height, width))
        image += 3000 * ((y - row) ** 2 + (x - column) ** 2 < 60)
    image[:, :24, :24] = 5000
    return np.moveaxis(image, 0, -1).astype(np.uint16)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_plane_statistics_match_numpy_in_double_precision(dtype):
    plane = (np.random.default_rng(0).random((700, 301)) * 200).astype(dtype)
    mean, std = plane_statistics(plane)
    reference = plane.astype(np.float64)
    assert mean == pytest.approx(reference.mean(), rel=1e-12)
    assert std == pytest.approx(reference.std(), rel=1e-12)


def test_plane_statistics_keep_small_contrast_on_a_large_offset():
    plane = np.full((64, 64), 60000, np.uint16)
    plane[::2] += 1
    assert plane_statistics(plane) == (60000.5, 0.5)


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i4", "f4", "f8"])
def test_standardised_follows_its_formula_channel_by_channel(dtype):
    image = (np.random.default_rng(1).random((31, 17, 3)) * 250).astype(dtype)
    mean, std = np.array([10.0, 125.0, 3.5]), np.array([5.0, 70.0, 1e-3])
    out = Levels(mean, std).apply(image)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, (image.astype(np.float64) - mean) / std, rtol=2e-6, atol=1e-4)
    clipped = Levels(mean, std, clip=2.0).apply(image)
    np.testing.assert_array_equal(clipped, np.clip(out, -2, 2))


def test_the_paper_is_what_it_was_bit_for_bit():
    image = scene()
    levels = measure(PAPER, image)
    gain = (1 / np.maximum(levels.spread, 1 / np.sqrt(image[..., 0].size))).astype(np.float32)
    before = (image - levels.mean.astype(np.float32)) * gain
    np.testing.assert_array_equal(levels.apply(image), before)
    assert Normalisation("standardise", None) == PAPER


@pytest.mark.parametrize("kind", NORMALISATIONS)
@pytest.mark.parametrize("unit", [1.0, 1e-3, 3e-9, 7e5])
def test_the_unit_of_an_image_does_not_matter(kind, unit):
    chosen, image = NORMALISATIONS[kind], scene(96, 96).astype(np.float32)
    expected = measure(chosen, image).apply(image)
    scaled = (image * unit).astype(np.float32)
    np.testing.assert_allclose(measure(chosen, scaled).apply(scaled), expected, atol=2e-3)


@pytest.mark.parametrize("kind", NORMALISATIONS)
@pytest.mark.parametrize("value", [0, 0.1, 7, 60_000, 1e-12])
def test_constant_planes_become_zero(kind, value):
    image = np.full((40, 50, 1), value, np.float32)
    assert not measure(NORMALISATIONS[kind], image).apply(image).any()


def test_wide_integers_stay_exact():
    image = np.array([[[2**30], [2**30 + 3]]], np.int32)
    out = Levels(np.array([2.0**30]), np.array([1.0])).apply(image)
    assert out.ravel().tolist() == [0, 3]


@pytest.mark.parametrize("kind", NORMALISATIONS)
@pytest.mark.parametrize("dtype", [np.uint16, np.float64])
def test_windows_are_the_whole_bit_by_bit(kind, dtype):
    image = scene().astype(dtype)
    levels = measure(NORMALISATIONS[kind], image)
    whole = levels.apply(image)
    rng = np.random.default_rng(2)
    for _ in range(30):
        top, left = rng.integers(0, (image.shape[0] - 1, image.shape[1] - 1))
        height, width = rng.integers(1, (image.shape[0] - top + 1, image.shape[1] - left + 1))
        window = np.s_[top : top + height, left : left + width]
        out = levels.apply(image[window], top=int(top), left=int(left))
        np.testing.assert_array_equal(out, whole[window])


def test_flat_takes_away_uneven_light_and_is_not_led_by_dark_corners():
    image = scene(640, 640, channels=1, seed=3)
    out = measure(FLAT, image).apply(image)[..., 0]
    assert np.abs(out).max() == FLAT.clip and (out[:20, :20] == -4).all()
    standardised = measure(PAPER, image).apply(image)[..., 0]
    for values, is_even in ((out, True), (standardised, False)):
        inner = values[128:-128, 128:-128]
        assert (abs(np.median(inner[:100]) - np.median(inner[-100:])) < 0.3) == is_even


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (BLOCK, BLOCK), (BLOCK + 1, 2 * BLOCK)])
def test_images_of_any_size_can_be_flat(shape):
    image = np.random.default_rng(0).integers(0, 99, (*shape, 2)).astype(np.uint8)
    out = measure(FLAT, image).apply(image)
    assert out.shape == image.shape and np.isfinite(out).all()


def test_one_plane_repeated_is_the_same_three_times():
    image = scene(channels=1)
    levels = measure(FLAT, image)
    three = levels.repeated(3).apply(np.repeat(image, 3, axis=-1))
    for channel in range(3):
        np.testing.assert_array_equal(three[..., channel], levels.apply(image)[..., 0])


def test_a_normalisation_is_stored_as_a_table_and_older_ones_are_the_papers():
    for chosen in NORMALISATIONS.values():
        assert Normalisation.from_json(dataclasses.asdict(chosen)) == chosen
    for older in (None, "each plane: (x - mean) / max(std, 1/sqrt(pixels))"):
        assert Normalisation.from_json(older) == PAPER
    for bad in ({"kind": "round"}, {"kind": "flat", "clip": 0}, {"kind": "flat", "clip": np.nan}):
        with pytest.raises(ValueError, match="normalisation"):
            Normalisation.from_json(bad)
