import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import distance_transform_edt

from isl_jax.data.targets import distance_map, semantic_mask


def brute_force(labels):
    """Distance of each cell pixel to every pixel that is not of its cell."""
    distance = np.zeros(labels.shape)
    for y, x in np.argwhere(labels > 0):
        others = np.argwhere(labels != labels[y, x])
        distance[y, x] = np.sqrt(((others - (y, x)) ** 2).sum(axis=1).min())
    return distance


LABELS = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)
)


@settings(max_examples=150, deadline=None)
@given(LABELS, st.integers(1, 3))
def test_distance_is_that_of_brute_force(labels, repeats):
    labels = labels.repeat(repeats, 0).repeat(repeats, 1)
    if np.all(labels == labels[0, 0]):
        return
    expected = brute_force(labels)
    pixels = distance_map(labels, "pixels", "all")
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, expected, rtol=1e-6)
    normalised = distance_map(labels, peaks="all")
    assert normalised.dtype == np.float32
    for label in set(labels[labels > 0].tolist()):
        cell = labels == label
        np.testing.assert_allclose(
            normalised[cell], expected[cell] * 255 / expected[cell].max(), rtol=1e-6
        )
    assert not normalised[labels == 0].any()


def test_touching_cells_bound_each_other_and_the_image_border_does_not():
    labels = np.zeros((7, 10), int)
    labels[:, :5], labels[:, 5:9] = 1, 2
    rows = distance_map(labels, "pixels", "all")
    np.testing.assert_array_equal(rows, [[5, 4, 3, 2, 1, 1, 2, 2, 1, 0]] * 7)


def test_a_cell_that_fills_the_image_is_bounded_by_its_border():
    expected = distance_transform_edt(np.pad(np.ones((5, 8)), 1))[1:-1, 1:-1]
    np.testing.assert_allclose(distance_map(np.full((5, 8), 3), scale="pixels"), expected)
    assert distance_map(np.full((5, 8), 3)).max() == 255


def test_no_cells_no_distance():
    assert not distance_map(np.zeros((4, 5), int)).any()
    for shape in ((0, 5), (5, 0)):
        assert distance_map(np.zeros(shape, int)).shape == shape


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i4", "u4", "i8", "u8"])
def test_any_integer_dtype_and_sparse_ids(dtype):
    labels = np.zeros((9, 9), int)
    labels[1:5, 1:5], labels[5:8, 2:8] = 1, 2
    ids = np.array([0, 5, np.iinfo(dtype).max], dtype)
    for scale in ("pixels", "normalised"):
        np.testing.assert_array_equal(distance_map(ids[labels], scale), distance_map(labels, scale))
    np.testing.assert_array_equal(semantic_mask(ids[labels]), labels > 0)
    assert semantic_mask(ids[labels]).dtype == np.float32


def test_sparse_ids_without_any_background():
    labels = np.where(np.indices((6, 6))[0] < 2, 10**9, 2 * 10**9)
    rows = distance_map(labels, "pixels", "all")
    np.testing.assert_array_equal(rows, np.repeat([[2], [1], [1], [2], [3], [4]], 6, axis=1))


def test_cells_of_any_size_are_exact():
    y, x = np.indices((300, 700))
    labels = ((y - 140) ** 2 + (x - 330) ** 2 < 250**2).astype(np.uint8)
    labels[(y - 140) ** 2 + (x - 100) ** 2 < 60**2] = 2
    for label in (1, 2):
        expected = distance_transform_edt(labels == label)
        inside = labels == label
        np.testing.assert_allclose(distance_map(labels, "pixels", "all")[inside], expected[inside])


def test_the_default_map_is_normalised_and_has_one_peak_a_cell():
    labels = np.zeros((30, 60), int)
    labels[5:25, 5:25] = labels[12:18, 25:35] = labels[5:25, 35:55] = 1
    np.testing.assert_array_equal(
        distance_map(labels), distance_map(labels, "normalised", "single")
    )
    assert (distance_map(labels) < distance_map(labels, peaks="all")).any()
    with pytest.raises(ValueError, match="peaks are 'two'; expected 'single' or 'all'"):
        distance_map(labels, peaks="two")  # type: ignore[arg-type]


def test_labels_are_left_as_they_are():
    labels = np.kron([[1, 0], [2, 3]], np.ones((4, 4), int))[:, ::2]
    before = labels.copy()
    distance_map(labels)
    np.testing.assert_array_equal(labels, before)


@pytest.mark.parametrize(
    ("labels", "scale", "message"),
    [
        (np.zeros((3, 3)), "pixels", r"labels are float64 \[3, 3\]"),
        (np.zeros((3, 3, 3), int), "pixels", r"int64 \[3, 3, 3\]"),
        (np.full((3, 3), -2), "pixels", "contain -2"),
        (np.zeros((3, 3), int), "unit", "scale is 'unit'"),
    ],
)
def test_bad_input_is_named(labels, scale, message):
    with pytest.raises(ValueError, match=message):
        distance_map(labels, scale=scale)
