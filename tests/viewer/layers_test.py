"""Where layers lie, and stacks of fields of different sizes."""

import numpy as np
import pytest

from isl_jax.viewer.layers import Channel, FieldOfView, Place, contrast, stacked

FIELDS = [FieldOfView("a", (4, 6), "train"), FieldOfView("b", (5, 3))]
PIXELS = [np.arange(24, dtype=np.uint16).reshape(4, 6), np.ones((5, 3), np.uint16)]


def test_blocks_of_pixels_lie_on_the_image_that_they_are_of():
    place = Place((0.5, 0.25), (3.0, 4.0), "micrometer").binned(2)
    shown = place.shown()
    assert shown["scale"] == [1.0, 0.5] and shown["units"] == ["micrometer"] * 2
    # The centre of the first block is between the centres of its four pixels.
    rows, columns = 3.0 + 0.5 * np.arange(2), 4.0 + 0.25 * np.arange(2)
    assert shown["translate"] == [rows.mean(), columns.mean()]
    assert Place.of((1.0, 0.5), 2) == Place((0.5, 0.25), unit="micrometer").binned(2)
    assert Place.of(None, 3).shown(stack=True) == {
        "scale": [1, 3, 3], "translate": [0, 1, 1], "units": ["pixel"] * 3,
    }  # fmt: skip


def test_fields_of_several_sizes_are_a_stack_that_is_read_when_shown():
    pytest.importorskip("dask.array")
    asked = []

    def read(field):
        asked.append(field)
        return PIXELS[field]

    channels = [
        Channel("phase", read),
        Channel("labels", lambda i: None if i == 0 else PIXELS[i], "labels"),
        Channel("none", lambda _: None),
    ]
    layers = stacked(FIELDS, channels, Place((2.0, 2.0)))
    assert [(shown["name"], kind) for _, shown, kind in layers] == [
        ("phase", "image"), ("labels", "labels"), ("fields", "shapes"),
    ]  # fmt: skip
    assert asked == [0]
    phase, labels = layers[0][0], layers[1][0]
    assert phase.shape == (2, 5, 6) and phase.dtype == np.uint16
    np.testing.assert_array_equal(phase[0, :4], PIXELS[0])
    np.testing.assert_array_equal(phase[1, :, :3], PIXELS[1])
    assert not np.asarray(labels[0]).any() and labels.dtype == np.int32
    assert layers[0][1]["scale"] == [1.0, 2.0, 2.0]
    assert layers[2][1]["features"]["field"] == ["a (train)", "b"]
    # A frame runs along the outer edges of its pixels.
    np.testing.assert_array_equal(layers[2][0][1][[0, 2]], [[1, -0.5, -0.5], [1, 4.5, 2.5]])


def test_one_field_is_no_stack():
    ((pixels, shown, kind),) = stacked(FIELDS[:1], [Channel("phase", lambda _: PIXELS[0])], Place())
    assert pixels is PIXELS[0] and kind == "image"
    assert shown["name"] == "a phase" and shown["scale"] == [1, 1]


def test_contrast_leaves_out_hot_pixels_and_is_never_empty():
    plane = np.tile(np.arange(100.0), (1000, 1))
    plane[0, 0] = 1e6
    low, high = contrast(plane)
    assert 0 <= low < 2 and 97 < high <= 99
    assert contrast(np.full((3, 3), 7)) == (7, 8)
