import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import label as connected
from skimage.morphology import local_maxima, reconstruction

from isl_jax.data.targets import distance_map
from isl_jax.instances.matching import match
from isl_jax.instances.watershed import label_instances

EIGHT = np.ones((3, 3))
LABELS = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 3)
)


def pieces(labels):
    """Masks of the 8-connected pieces of every label."""
    numbered = connected(labels, connectivity=2)
    return [numbered == k for k in range(1, numbered.max() + 1)]


def oracle(labels, distance):
    """Each piece reconstructed by scikit-image from its highest pixel under itself."""
    out = np.zeros_like(distance)
    for piece in pieces(labels):
        under = np.where(piece, distance, 0)
        seed = np.zeros_like(under)
        seed[np.unravel_index(under.argmax(), under.shape)] = under.max()
        out += np.where(piece, reconstruction(seed, under, footprint=EIGHT), 0).astype(np.float32)
    return out


@settings(max_examples=200, deadline=None)
@given(LABELS, st.integers(1, 4), st.integers(1, 4))
def test_one_peak_a_piece_and_the_same_borders(labels, tall, wide):
    labels = labels.repeat(tall, 0).repeat(wide, 1)
    plain = distance_map(labels, "pixels", "all")
    single = distance_map(labels, "pixels", "single")
    np.testing.assert_array_equal(single, oracle(labels, plain))
    assert ((single > 0) == (labels > 0)).all() and (single <= plain).all()
    for piece in pieces(labels):
        inside = np.pad(np.where(piece, single, 0), 1)
        assert local_maxima(inside, connectivity=2, allow_borders=False).any()
        assert connected(local_maxima(inside, connectivity=2)).max() == 1
        assert single[piece].max() == plain[piece].max()


def test_scaling_keeps_the_peak_of_every_label():
    labels = np.zeros((40, 60), int)
    labels[5:35, 5:25] = labels[12:20, 25:50] = 1
    labels[25:38, 30:58] = 2
    single, plain = distance_map(labels), distance_map(labels, peaks="all")
    assert [single[labels == k].max() for k in (1, 2)] == pytest.approx([255, 255])
    assert (single <= plain).all()


def dumb_bells(size=120):
    """Two discs joined by a neck, twice, touching: labels 1 and 2."""
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.int32)
    for label, row in ((1, 35), (2, 75)):
        for column in (30, 80):
            labels[(y - row) ** 2 + (x - column) ** 2 < 20**2] = label
        labels[row - 12 : row + 12, 30:80] = label
    return labels


@pytest.mark.parametrize("h", [1, 10, 60, 100])
def test_cells_with_necks_are_read_as_one_at_any_contrast(h):
    labels = dumb_bells()
    found = label_instances(distance_map(labels), labels > 0, h=h)
    assert match(labels, found).mean_ap == 1
    plain = label_instances(distance_map(labels, peaks="all"), labels > 0, h=1)
    assert match(labels, plain).mean_ap < 1


def test_cells_of_real_size_agree_with_the_oracle():
    rng = np.random.default_rng(0)
    seeds = np.zeros((160, 170), int)
    for label, (row, column) in enumerate(rng.integers(0, 160, (9, 2)), start=1):
        seeds[row, column] = label
    nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    distance, (rows, columns) = nearest
    labels = np.where(distance < 45, seeds[rows, columns], 0)
    labels[rng.random(labels.shape) < 0.002] = 0
    plain = distance_map(labels, "pixels", "all")
    np.testing.assert_array_equal(distance_map(labels, "pixels"), oracle(labels, plain))
