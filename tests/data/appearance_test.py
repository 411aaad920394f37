"""Statistics of places, and faults that are put into images."""

import numpy as np
import pytest
from scipy import ndimage

from isl_jax.data.appearance import SATURATED, UNSHARP, acquisition, distinct_planes, places


def textured(seed: int = 0, size=(300, 260)) -> np.ndarray:
    """Detail of all widths, in raw units of a camera."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(5, *size))
    details = [
        s * ndimage.gaussian_filter(n, s) for n, s in zip(noise, (1, 2, 4, 8, 16), strict=True)
    ]
    return (1000 + 100 * np.sum(details, axis=0)).astype(np.uint16)[..., None]


def test_a_blurred_field_is_out_of_focus_and_the_unit_does_not_matter():
    sharp = textured()
    blurred = ndimage.gaussian_filter(sharp[..., 0].astype(float), 2)[..., None]
    seen = acquisition(sharp)
    assert acquisition(blurred).sharpness < UNSHARP * seen.sharpness
    assert acquisition(3.0 * sharp + 500).sharpness == pytest.approx(seen.sharpness, rel=1e-3)
    assert acquisition(textured(1)).sharpness == pytest.approx(seen.sharpness, rel=0.1)


def test_saturation_is_the_share_of_pixels_at_the_highest_value():
    image = textured()
    assert acquisition(image).saturated < SATURATED
    image[:30] = 4095
    assert acquisition(image).saturated == pytest.approx(30 / 300, abs=1e-3)
    assert acquisition(np.full((64, 64, 1), 7, np.uint8)).saturated == 0


def test_channels_that_repeat_count_once():
    image = textured()
    thrice = np.repeat(image, 3, axis=-1)
    assert len(distinct_planes(thrice)) == 1
    np.testing.assert_array_equal(places(thrice), places(image))


def test_places_are_squares_and_there_are_some_in_small_fields():
    assert places(textured(size=(300, 260))).shape[0] == 2 * 2
    assert places(textured(size=(40, 50))).shape[0] == 2 * 2
    features = places(textured())
    # The mean of a place, and the logarithm of its standard deviation.
    block = textured()[:128, :128, 0].astype(float)
    np.testing.assert_allclose(
        features[0, :2], [block.mean(), np.log(block.std() + 1e-3)], rtol=1e-3
    )


@pytest.mark.parametrize("name", ["hela1", "mcf10a", "bmdm", "3t3_1", "plating2500k"])
def test_no_real_field_is_out_of_focus(real_data, name):
    import tifffile

    def seen(field: str):
        path = real_data / "phase_hela_and_others" / f"{field}_phase.tif"
        return acquisition(tifffile.imread(path)[::2, ::2, None])

    assert seen(name).sharpness > UNSHARP * seen("hela1").sharpness
    assert seen(name).saturated < SATURATED
