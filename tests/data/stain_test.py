from math import inf, sqrt

import numpy as np
import pytest

from isl_jax.data.stain import RELATIVE, StainScale, stain_threshold


def test_stain_scale_maps_its_ends_to_0_and_1_and_inverts():
    scale = StainScale(100, 8100)
    stain = np.array([[100, 8100, 4100, 60000]], np.uint16)
    scaled = scale.scale(stain)
    np.testing.assert_allclose(scaled, [[0, 1, 0.5, 7.4875]], rtol=1e-6)
    np.testing.assert_allclose(scale.unscale(scaled), stain, rtol=1e-6)
    assert scale.limits == (-inf, inf) and "raw" in scale.unit


def test_dtype_scale_is_the_dtype_maximum_and_refuses_floats():
    assert StainScale.from_dtype(np.uint16) == StainScale(0, 65535, "dtype")
    assert StainScale.from_dtype(np.uint16).limits == (0, 1)
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


def nuclei(brightness: float, seed=0) -> np.ndarray:
    """Stain [128, 128]: noise of 10 about 500, nuclei of 1 and 2 times the brightness."""
    stain = 500 + np.random.default_rng(seed).normal(0, 10, (128, 128))
    stain[20:40, 20:50] += brightness
    stain[70:90, 30:50] += brightness
    stain[100:110, 100:115] += 2 * brightness
    return stain.astype(np.uint16)


def test_fields_of_any_brightness_get_the_same_target():
    for brightness in (300, 3000, 30_000):
        scale = StainScale.from_field(nuclei(brightness))
        target = scale.scale(nuclei(brightness))
        assert target.dtype == np.float32
        assert target[30, 30] == pytest.approx(1, abs=0.05)
        assert target[105, 105] == pytest.approx(sqrt(2), abs=0.07)
        assert np.median(target[50:65]) == pytest.approx(0, abs=0.05)
        assert (target.min(), target.max()) >= (0, 1) and target.max() <= sqrt(3)


def test_a_target_by_field_follows_its_formula_and_inverts_within_its_range():
    stain = nuclei(3000)
    scale = StainScale.from_field(stain)
    signal = np.median(stain[stain > stain_threshold(stain)])
    assert (scale.low, scale.high) == (np.median(stain), signal)
    relative = np.clip((stain - scale.low) / (signal - scale.low), 0, 3)
    np.testing.assert_allclose(scale.scale(stain), np.sqrt(relative), atol=1e-6)
    np.testing.assert_allclose(RELATIVE.unscale(scale.scale(stain)), relative, atol=1e-6)
    assert RELATIVE.unscale(np.array([-5.0, 9.0])).tolist() == pytest.approx([0, 3])
    assert RELATIVE.limits == (0, sqrt(3)) and "typical signal" in RELATIVE.unit


@pytest.mark.parametrize("fill", ["constant", "noise", "hot pixels"])
def test_a_field_without_signal_has_the_target_zero(fill):
    stain = np.full((600, 600), 400, np.uint16)
    if fill != "constant":
        stain += np.random.default_rng(1).normal(100, 15, stain.shape).astype(np.uint16)
    if fill == "hot pixels":
        stain[::97, ::89] = 60_000
    scale = StainScale.from_field(stain)
    assert scale.high == inf
    assert not scale.scale(stain).any()


@pytest.mark.parametrize("covered", [0.1, 0.4, 0.55, 0.7, 0.9])
def test_a_stain_of_whole_cells_is_found_however_much_they_cover(covered):
    """Cells of all brightness on dark ground: the ground is 0, cells are about 1."""
    rng = np.random.default_rng(2)
    width = int(400 * covered)
    stain = 100 + rng.normal(0, 10, (400, 400))
    cells = np.repeat(np.repeat(rng.lognormal(7, 0.4, (20, 20)), 20, 0), 20, 1)
    stain[:, :width] += (cells * rng.normal(1, 0.1, cells.shape))[:, :width]
    scale = StainScale.from_field(stain.astype(np.uint16))
    target = scale.scale(stain.astype(np.uint16))
    assert scale.low == pytest.approx(100, abs=15)
    assert np.median(target[:, :width]) == pytest.approx(1, abs=0.1)
    assert target[:, width:].mean() < 0.1


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="stain scale 'mean' is none of field, percentile, dtype"):
        StainScale(0, 1, "mean")  # type: ignore[arg-type]
