"""Outlines against the pixels they enclose."""

import numpy as np
from matplotlib.path import Path as Polygon
from scipy import ndimage
from skimage.measure import label

from isl_jax.outputs.vectors import first_pixels, outlines


def covered(polygon, shape):
    """Pixels whose centres lie inside a polygon, by an independent test."""
    rows, columns = np.indices(shape)
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    closed = np.concatenate([polygon, polygon[:1]])
    return Polygon(closed).contains_points(centres).reshape(shape)


def shoelace(polygon):
    x, y = polygon.T.astype(float)
    return (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2


def blobs(shape=(40, 50)):
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(shape), 2)
    return np.asarray(label(noise > 0.05, connectivity=1), np.int32)


def test_every_outline_covers_its_object_and_its_holes():
    labels = blobs()
    polygons = outlines(labels)
    assert len(polygons) == labels.max() > 5
    for index, polygon in enumerate(polygons, 1):
        expected = ndimage.binary_fill_holes(labels == index)
        np.testing.assert_array_equal(covered(polygon, labels.shape), expected)
        # Clockwise on the screen, and corners only where it turns.
        assert shoelace(polygon) == expected.sum()
        steps = np.diff(np.concatenate([polygon, polygon[:1]]), axis=0)
        assert ((steps == 0).sum(axis=1) == 1).all()
        assert (steps[1:] * steps[:-1] == 0).all()


def test_single_pixels_edges_of_the_image_and_corners_that_touch():
    labels = np.zeros((4, 5), np.int32)
    labels[0, 0] = 1
    labels[:, 4] = 2
    labels[1, 1] = labels[2, 2] = 3  # two pixels that meet at a corner are one part
    one, column, pair = outlines(labels)
    assert one.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]
    assert column.tolist() == [[4, 0], [5, 0], [5, 4], [4, 4]]
    assert shoelace(pair) == 2 and len(pair) == 8


def test_no_objects_no_outlines():
    assert outlines(np.zeros((5, 5), np.int32)) == []


def test_first_pixels_are_the_first_in_rows(monkeypatch):
    monkeypatch.setattr("isl_jax.outputs.vectors._BAND_ROWS", 7)
    labels = blobs()
    expected = [np.flatnonzero(labels == index)[0] for index in range(1, labels.max() + 1)]
    np.testing.assert_array_equal(first_pixels(labels), expected)
