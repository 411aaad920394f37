import numpy as np
import pytest

from isl_jax.data.crops import Crop, fixed_crops
from isl_jax.data.samples import load_crop
from isl_jax.data.targets import distance_map


@pytest.mark.parametrize("scale", ["normalised", "pixels"])
@pytest.mark.parametrize("name", ["a", "b", "d"])
def test_distance_of_a_crop_is_cut_from_the_whole_fields_map(dataset, name, scale):
    whole = distance_map(np.asarray(dataset.labels(name)), scale=scale)
    drawn, _ = fixed_crops(
        dataset, [dataset.field(name)], size=17, per_image=30, seed=0, rule="any"
    )
    for crop in drawn:
        sample = load_crop(
            dataset, crop, target="distance_and_semantic", distance_scale=scale, distance_unit=2
        )
        window = np.s_[crop.top : crop.top + 17, crop.left : crop.left + 17]
        np.testing.assert_array_equal(sample["target"][..., 0], whole[window] / 2)
        np.testing.assert_array_equal(sample["target"][..., 1], dataset.labels(name)[window] > 0)


def test_image_and_stain_of_a_crop_are_cut_from_the_whole_field(dataset):
    crop = Crop("c", 11, 30, 48)
    sample = load_crop(dataset, crop, target="stain")
    window = np.s_[11:59, 30:78]
    np.testing.assert_array_equal(sample["image"], dataset.standardised("c")[window])
    scaled = dataset.stain_scale.scale(dataset.stain_image("c")[window])
    np.testing.assert_array_equal(sample["target"][..., 0], scaled)
    assert sample["weight"].shape == (48, 48, 1) and sample["weight"].all()
    assert {array.dtype for array in sample.values()} == {np.dtype(np.float32)}


def test_a_crop_past_its_field_is_reflected_and_weighs_nothing_there(dataset):
    sample = load_crop(dataset, Crop("d", 0, 4, 48), target="semantic")
    assert sample["image"].shape == (48, 48, 3)
    assert sample["weight"][:40].all() and not sample["weight"][40:].any()
    np.testing.assert_array_equal(sample["image"][40:], sample["image"][31:39][::-1])
    np.testing.assert_array_equal(sample["target"][40:], sample["target"][31:39][::-1])


def test_an_unknown_target_is_named(dataset):
    with pytest.raises(ValueError, match="target 'depth'"):
        load_crop(dataset, Crop("a", 0, 0, 8), target="depth")  # type: ignore
