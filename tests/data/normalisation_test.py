import numpy as np
import pytest

from isl_jax.data.normalisation import StainScale, plane_statistics, standardise


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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_standardise_follows_its_formula_channel_by_channel(dtype):
    image = (np.random.default_rng(1).random((31, 17, 3)) * 250).astype(dtype)
    mean, std = [10.0, 125.0, 3.5], [5.0, 70.0, 1e-9]
    out = standardise(image, mean, std)
    floor = 1 / np.sqrt(31 * 17)
    expected = (image.astype(np.float64) - mean) / np.maximum(std, floor)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, rtol=2e-6, atol=1e-3)


def test_standardise_uses_the_pixel_count_of_the_whole_field():
    image = np.ones((4, 4, 1), np.float32)
    assert standardise(image, [0.0], [0.0], pixels=10_000)[0, 0, 0] == pytest.approx(100)


def test_standardise_keeps_wide_integers_exact():
    image = np.array([[[2**30], [2**30 + 3]]], np.int32)
    out = standardise(image, [2.0**30], [1.0])
    assert out.ravel().tolist() == [0, 3]


def test_stain_scale_maps_its_ends_to_0_and_1_and_inverts():
    scale = StainScale(100, 8100)
    stain = np.array([[100, 8100, 4100, 60000]], np.uint16)
    scaled = scale.scale(stain)
    np.testing.assert_allclose(scaled, [[0, 1, 0.5, 7.4875]], rtol=1e-6)
    np.testing.assert_allclose(scale.unscale(scaled), stain, rtol=1e-6)


def test_dtype_scale_is_the_dtype_maximum_and_refuses_floats():
    assert StainScale.from_dtype(np.uint16) == StainScale(0, 65535)
    with pytest.raises(ValueError, match="float32 stain has no dtype maximum"):
        StainScale.from_dtype(np.float32)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_percentiles_are_exact_over_all_integer_planes(dtype):
    rng = np.random.default_rng(2)
    planes = [rng.integers(3, 200, (50, k)).astype(dtype) for k in (40, 7, 1)]
    scale = StainScale.from_percentiles(iter(planes))
    together = np.concatenate([plane.ravel() for plane in planes])
    assert (scale.low, scale.high) == pytest.approx(np.percentile(together, (0.1, 99.9)))


def test_percentiles_of_float_planes():
    plane = np.random.default_rng(3).normal(size=(200, 200)).astype(np.float32)
    scale = StainScale.from_percentiles([plane])
    assert (scale.low, scale.high) == pytest.approx(np.percentile(plane, (0.1, 99.9)), rel=1e-5)


def test_a_constant_stain_has_no_scale():
    with pytest.raises(ValueError, match="constant over the training fields"):
        StainScale.from_percentiles([np.full((8, 8), 7, np.uint16)])
