"""Pictures of validation crops, in words that a program can check."""

import numpy as np

from isl_jax.task import Kind, Task
from isl_jax.training.progress import panel


def test_a_row_shows_input_truth_and_output():
    rng = np.random.default_rng(0)
    batch = {"image": rng.normal(size=(6, 4, 4, 3)), "target": np.zeros((6, 4, 4, 2))}
    batch["target"][..., 1] = 1
    outputs = np.zeros((8, 4, 4, 2))  # more than crops: padded for the devices
    outputs[..., 0], outputs[..., 1] = 0.5, -30.0
    shown = panel(batch, outputs, Task(Kind.INSTANCES))
    assert (shown.shape, shown.dtype) == ((4, 4, 20, 1), np.uint8)
    image, *maps = np.split(shown[..., 0], 5, axis=2)
    assert (image.min((1, 2)) == 0).all()
    assert (image.max((1, 2)) == 255).all()
    assert [int(m.mean()) for m in maps] == [0, 255, 128, 0]


def test_outputs_that_are_not_numbers_are_black():
    batch = {"image": np.zeros((2, 4, 4, 1)), "target": np.ones((2, 4, 4, 1))}
    assert not panel(batch, np.full((2, 4, 4, 1), np.nan), Task(Kind.STAIN))[:, :, 8:].any()
