import threading

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import relabel_sequential, watershed

from isl_jax.instances.watershed import (
    InstancePool,
    label_batch,
    label_instances,
)


def by_definition(distance, semantic, h):
    """The markers and the watershed of scikit-image, in its own words."""
    maxima = local_maxima(reconstruction(distance - h, distance), connectivity=2)
    labels = watershed(-distance, label(maxima, connectivity=2), mask=semantic)
    return relabel_sequential(labels)[0]


def assert_by_definition(distance, semantic, h):
    found = label_instances(distance, semantic, h=h)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, by_definition(distance, semantic, h))


SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)
# Few levels make plateaus and ties; blocks make them large.
PLATEAUS = st.sampled_from([0.0, 1.0, 2.0, 10.0, 20.0, 50.0, -0.0, -10.0])
NUMBERS = st.floats(-300, 300, width=32)
HUGE = st.floats(-(2.0**124), 2.0**124, width=32) | st.sampled_from(
    [0.0, 2.0**-140, -(2.0**-140), 2.0**100, -(2.0**100)]
)
CONTRASTS = st.sampled_from([0.0, 1.0, 10.0, 30.0, 60.0, 1000.0])


@st.composite
def maps(draw):
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    values = draw(st.sampled_from([PLATEAUS, NUMBERS, HUGE]))
    distance = draw(hnp.arrays(dtype, SHAPES, elements=values))
    repeats = draw(st.integers(1, 3))
    distance = distance.repeat(repeats, 0).repeat(draw(st.integers(1, 3)), 1)
    semantic = draw(
        st.sampled_from([np.ones(distance.shape, bool), np.zeros(distance.shape, bool)])
        | hnp.arrays(bool, distance.shape)
    )
    return distance, semantic


@settings(max_examples=600, deadline=None)
@given(maps(), CONTRASTS)
def test_labels_are_those_of_the_definition(case, h):
    distance, semantic = case
    assert_by_definition(distance, semantic, distance.dtype.type(h))


def cells(size, count, seed):
    """Distance-like maps of cells that touch each other and the image border."""
    rng = np.random.default_rng(seed)
    seeds = np.zeros((size, size), bool)
    seeds[tuple(rng.integers(0, size, (2, count)))] = True
    return ndimage.distance_transform_edt(~seeds).max() - ndimage.distance_transform_edt(~seeds)


@pytest.mark.parametrize("kind", ["smooth noise", "cells", "noisy cells", "integer cells", "flat"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_labels_of_larger_images_are_those_of_the_definition(kind, dtype):
    rng = np.random.default_rng(3)
    noise = ndimage.gaussian_filter(rng.standard_normal((300, 300)), 4) * 200
    distance = {
        "smooth noise": noise,
        "cells": cells(300, 40, 0),
        "noisy cells": cells(300, 40, 1) + noise / 10,
        "integer cells": np.round(cells(300, 40, 2)),
        "flat": np.full((300, 300), 7.0),
    }[kind].astype(dtype)
    for semantic in (distance > np.median(distance), np.ones(distance.shape, bool)):
        for h in (0, 3, 30):
            assert_by_definition(distance, semantic, dtype(h))


def test_labels_of_real_cells_are_those_of_the_definition(real_data):
    import tifffile

    from isl_jax.data.targets import distance_map

    path = real_data / "phase_hela_and_others" / "hela1_cell_masks.tif"
    truth = tifffile.imread(path)[:600, :600]
    for scale, h in (("normalised", 60), ("pixels", 3)):
        distance = distance_map(truth, scale=scale)
        assert_by_definition(distance, truth > 0, np.float32(h))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (1, 7), (7, 1)])
def test_tiny_images(shape):
    distance = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    labels = label_instances(distance, np.ones(shape, bool), h=0)
    assert labels.shape == shape
    assert labels.max(initial=0) == (distance.size > 1)


def test_equal_peaks_with_a_shallow_saddle_are_one_cell():
    # scikit-image's own h_maxima keeps both, whatever h.
    distance = np.zeros((5, 9), np.float32)
    distance[2, 1:8] = [150, 200, 190, 185, 190, 200, 150]
    assert label_instances(distance, distance > 0, h=30).max() == 1
    assert label_instances(distance, distance > 0, h=10).max() == 2


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, (9, 9), elements=st.integers(0, 120)))
def test_h_of_30_selects_the_markers_of_the_double_threshold_of_the_papers_code(distance):
    once = reconstruction(distance - 10, distance)
    twice = local_maxima(reconstruction(once - 20, once), connectivity=2)
    labels = watershed(-distance, label(twice, connectivity=2), mask=distance > 0)
    np.testing.assert_array_equal(
        label_instances(distance, distance > 0, h=30), relabel_sequential(labels)[0]
    )


def two_cells():
    distance = np.zeros((12, 24), np.float32)
    distance[2:10, 2:10] = 50
    distance[4:8, 4:8] = 100
    distance[3:6, 15:19] = 8
    return distance, distance > 0


def test_foreground_without_a_marker_is_background_unless_asked_for():
    distance, semantic = two_cells()
    distance[3:6, 15:19] = 0  # no maximum of its own
    assert set(np.unique(label_instances(distance, semantic, h=10))) == {0, 1}
    labels = label_instances(distance, semantic, h=10, keep_unmarked=True)
    assert (labels[3:6, 15:19] == 2).all() and labels.max() == 2


def test_small_instances_can_be_dropped():
    distance, semantic = two_cells()
    assert label_instances(distance, semantic, h=5).max() == 2
    labels = label_instances(distance, semantic, h=5, min_size=13)
    assert labels.max() == 1 and (labels > 0).sum() == 64


def test_holes_can_be_filled():
    distance, semantic = two_cells()
    semantic[5, 5] = False
    assert label_instances(distance, semantic, h=5)[5, 5] == 0
    labels = label_instances(distance, semantic, h=5, fill_holes=True)
    assert labels[5, 5] == labels[4, 4] > 0


def test_more_than_255_objects_keep_their_ids():
    distance = np.zeros((60, 60), np.float32)
    distance[1::3, 1::3] = 100
    labels = label_instances(distance, distance > 0, h=10)
    np.testing.assert_array_equal(labels[labels > 0], np.arange(1, 401))


def test_semantic_may_be_boolean_integer_or_probability():
    distance, semantic = two_cells()
    expected = label_instances(distance, semantic, h=5)
    for other in (semantic.astype(np.uint8) * 255, semantic * 0.3 + 0.4):
        np.testing.assert_array_equal(label_instances(distance, other, h=5), expected)


def test_half_precision_maps_are_refused_because_rounding_moves_labels():
    rng = np.random.default_rng(0)
    distance = ndimage.gaussian_filter(rng.standard_normal((256, 256)), 5) * 600 + 100
    distance = distance.astype(np.float32)
    semantic = distance > 60
    exact = label_instances(distance, semantic, h=10)
    for dtype, at_least in ((ml_dtypes.bfloat16, 0.01), (np.float16, 0.0001)):
        with pytest.raises(ValueError, match="expected float32 or float64"):
            label_instances(distance.astype(dtype), semantic, h=10)
        rounded = label_instances(distance.astype(dtype).astype(np.float32), semantic, h=10)
        assert (rounded != exact)[semantic].mean() > at_least


@pytest.mark.parametrize(
    ("distance", "semantic", "h", "message"),
    [
        (np.zeros((3, 3, 1), np.float32), np.ones((3, 3, 1)), 10, r"\[3, 3, 1\].*\[H, W\]"),
        (np.zeros((3, 3), np.float32), np.ones((3, 4)), 10, r"mask is \[3, 4\].*\[3, 3\]"),
        (np.zeros((3, 3), np.float32), np.ones((3, 3)), -1, "h is -1"),
        (np.full((3, 3), np.nan, np.float32), np.ones((3, 3)), 10, "NaN"),
    ],
)
def test_bad_input_is_named(distance, semantic, h, message):
    with pytest.raises(ValueError, match=message):
        label_instances(distance, semantic, h=h)


def test_batches_keep_their_order_and_options():
    rng = np.random.default_rng(0)
    distances = [rng.random((20 + k, 30)).astype(np.float32) * 100 for k in range(12)]
    semantics = [distance > 30 for distance in distances]
    batch = list(label_batch(distances, semantics, num_workers=3, h=20, min_size=4))
    for labels, distance, semantic in zip(batch, distances, semantics, strict=True):
        np.testing.assert_array_equal(labels, label_instances(distance, semantic, h=20, min_size=4))


def test_a_batch_is_read_only_a_few_images_ahead():
    taken = []

    def endless():
        while True:
            taken.append(None)
            yield np.zeros((8, 8), np.float32)

    batch = label_batch(endless(), endless(), num_workers=2)
    next(batch)
    batch.close()
    assert len(taken) <= 12


def test_a_pool_works_in_the_background():
    distance, semantic = two_cells()
    with InstancePool(1) as pool:
        future = pool.submit(distance, semantic, h=5)
        names = [thread.name for thread in threading.enumerate()]
        assert future.result().max() == 2
    assert any(name.startswith("instances") for name in names)
