"""Predictions averaged over flips and turns: they turn with the image."""

import numpy as np
import pytest

from isl_jax.inference.augmented import TTA, augmented
from isl_jax.inference.forward import Forward
from isl_jax.models.heads import build_network
from isl_jax.models.variables import init_variables
from isl_jax.task import Task

CHANNELS = 2


@pytest.fixture(scope="module")
def predict():
    network = build_network(out_channels=2, encoder="tiny")
    variables = init_variables(network, in_channels=CHANNELS, seed=1)
    task = Task("distance_and_semantic")
    return {tta: Forward(network, variables, task=task, tta=tta) for tta in TTA}


@pytest.fixture
def image():
    return np.random.default_rng(3).normal(size=(1, 64, 64, CHANNELS)).astype(np.float32)


def test_all_eight_turn_with_the_image(predict, image):
    whole = predict[8](image)
    assert (
        np.abs(predict[1](np.rot90(image, axes=(1, 2))) - np.rot90(whole, axes=(1, 2))).max() > 1e-2
    )
    for turns in range(4):
        for flipped in (image, image[:, :, ::-1]):
            turned = np.rot90(flipped, turns, axes=(1, 2))
            expected = np.rot90(predict[8](flipped), turns, axes=(1, 2))
            np.testing.assert_allclose(predict[8](turned), expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(predict[8](image[:, ::-1])[:, ::-1], whole, rtol=1e-4, atol=1e-3)


def test_four_flip_with_the_image(predict, image):
    flipped = predict[4](image[:, ::-1, ::-1])[:, ::-1, ::-1]
    np.testing.assert_allclose(flipped, predict[4](image), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("tta", TTA)
def test_every_prediction_is_turned_back(tta):
    images = np.random.default_rng(0).normal(size=(3, 5, 7, CHANNELS)).astype(np.float32)
    seen = []

    def same(turned):
        seen.append(turned.copy())
        return turned

    np.testing.assert_allclose(augmented(same, images, tta), images, rtol=1e-6)
    assert len(seen) == tta
    assert len({one.tobytes() for one in seen}) == tta


def test_images_that_are_no_square_keep_their_shape(predict):
    image = np.random.default_rng(0).normal(size=(2, 32, 96, CHANNELS)).astype(np.float32)
    assert predict[8](image).shape == (2, 32, 96, 2)
    assert predict[4](image).shape == (2, 32, 96, 2)
