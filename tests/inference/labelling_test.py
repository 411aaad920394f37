"""Labels in bands and blocks against those of the whole image."""

import warnings

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import KDTree

from isl_jax.data.targets import distance_map
from isl_jax.inference import labelling
from isl_jax.inference.info import PostProcessing
from isl_jax.inference.labelling import label_maps
from isl_jax.inference.large import Scratch


@pytest.fixture
def bands(monkeypatch, tmp_path):
    monkeypatch.setattr(labelling, "_BAND_PIXELS", 13 * 300)
    return Scratch(tmp_path, max_pixels=1000)


@pytest.fixture(scope="module")
def cells():
    """Maps of touching cells as a network would give them: smoothed, noisy float32."""
    rng = np.random.default_rng(3)
    centres = rng.random((150, 2)) * (420, 300)
    gaps, nearest = KDTree(centres).query(np.indices((420, 300)).reshape(2, -1).T)
    labels = np.where(gaps < 17, nearest + 1, 0).reshape(420, 300)
    noise = ndimage.gaussian_filter(rng.standard_normal(labels.shape), 2) * 60
    distance = ndimage.gaussian_filter(distance_map(labels.astype(np.int32)), 1) + noise
    return (labels > 0).astype(np.float32), distance.astype(np.float32)


def same_partition(a, b):
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return pairs.shape[1] == len(np.unique(a)) == len(np.unique(b))


@pytest.mark.parametrize("options", [{}, {"min_size": 40}, {"fill_holes": True, "min_size": 9}])
def test_components_in_bands_are_those_of_the_whole_image(bands, options):
    noise = np.random.default_rng(0).standard_normal((420, 300))
    probability = (0.5 + ndimage.gaussian_filter(noise, 2)).astype(np.float32)
    settings = PostProcessing(threshold=0.51, **options)
    whole = label_maps(probability, options=settings)
    found = label_maps(probability, options=settings, scratch=bands)
    assert whole.max() > 50
    np.testing.assert_array_equal(found, whole)


def test_a_spiral_through_every_band_is_one_component(bands):
    image = np.zeros((140, 300), np.float32)
    image[::4] = 1
    image[2::8, -1] = image[1::8, -1] = image[3::8, -1] = 1
    image[6::8, 0] = image[5::8, 0] = image[7::8, 0] = 1
    assert label_maps(image).max() == 1
    np.testing.assert_array_equal(label_maps(image, scratch=bands), label_maps(image))


@pytest.mark.parametrize("options", [{}, {"fill_holes": True, "min_size": 60}, {"sigma": 2.0}])
def test_instances_in_blocks_are_those_of_the_whole_image(bands, cells, options):
    probability, distance = cells
    settings = PostProcessing(h=40.0, **options)
    whole = label_maps(probability, distance, options=settings)
    found = label_maps(probability, distance, options=settings, scratch=bands, block=96, margin=64)
    assert whole.max() > 60
    assert same_partition(found, whole)
    np.testing.assert_array_equal(np.unique(found), np.arange(whole.max() + 1))


def test_objects_larger_than_the_margin_are_told(bands, cells):
    probability, distance = cells
    options = PostProcessing(h=40.0)
    with pytest.warns(UserWarning, match="wider block margin"):
        label_maps(probability, distance, options=options, scratch=bands, block=64, margin=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        label_maps(probability, distance, options=options, scratch=bands, block=96, margin=64)


def test_instances_need_a_contrast(cells):
    with pytest.raises(ValueError, match="marker contrast"):
        label_maps(*cells)
