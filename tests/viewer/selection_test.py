"""What is selected, of layers as napari makes them."""

import numpy as np
import pytest

from isl_jax.viewer.selection import selected

PHASE = ("phase", "phase", "phase")


@pytest.fixture
def select(viewer):
    def choose(*layers):
        viewer.layers.selection = set(layers)
        return lambda channels: selected(viewer, channels)

    return choose


def test_layers_in_the_order_of_the_list_with_their_place(viewer, select):
    first = viewer.add_image(np.zeros((4, 5)), name="bf", scale=(0.5, 0.5), translate=(1, 2))
    first.units = ("micrometer", "micrometer")
    second = viewer.add_image(np.ones((4, 5)), name="phase", scale=(0.5, 0.5))
    labels = viewer.add_labels(np.zeros((4, 5), int))
    found = select(second, labels, first)(("bf", "phase"))
    assert [image.name for image in found.images] == ["bf", "phase"]
    assert found.spacing == (0.5, 0.5) and found.place.unit == "micrometer"
    assert found.place.translate == (1.0, 2.0)
    viewer.layers.selection.clear()
    assert selected(viewer, PHASE).images == ()


def test_without_micrometres_the_size_of_a_pixel_is_not_known(viewer, select):
    layer = viewer.add_image(np.zeros((4, 5)), scale=(2, 2))
    found = select(layer)(PHASE)
    assert found.spacing is None and found.place.scale == (2.0, 2.0)


def test_of_a_stack_the_field_that_is_shown_or_all_planes_of_the_image(viewer, select):
    stack = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    layer = viewer.add_image(stack, name="phase", metadata={"fields": ["a", "b", "c"]})
    viewer.dims.set_current_step(0, 2)
    (image,) = select(layer)(PHASE).images  # three fields are not three times the phase
    assert image.name == "c phase"
    np.testing.assert_array_equal(image.pixels, stack[2])
    (image,) = select(layer)(("dic0", "dic1", "dic2")).images
    np.testing.assert_array_equal(image.pixels, stack)
    other = viewer.add_image(stack, name="bf")
    images = select(layer, other)(("phase", "bf", "x")).images
    assert [image.pixels.shape for image in images] == [(4, 5), (4, 5)]
