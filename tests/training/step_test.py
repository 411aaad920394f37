"""One step: on any number of devices, by the definition of Adam, compiled once for two arms."""

import jax
import numpy as np
import pytest

from isl_jax.models.heads import shifted_sigmoid
from isl_jax.task import Kind, Task
from isl_jax.training.devices import data_mesh, shard_batch
from isl_jax.training.losses import loss_parameters
from isl_jax.training.settings import TrainSettings
from isl_jax.training.step import create_state, make_train_step

SIZE, BATCH = 8, 4
STAIN = Task(Kind.STAIN)


def batch_of(index):
    rng = np.random.default_rng(index)
    return {
        "image": rng.normal(size=(BATCH, SIZE, SIZE, 3)).astype(np.float32),
        "target": rng.random((BATCH, SIZE, SIZE, 1)).astype(np.float32),
        "weight": np.ones((BATCH, SIZE, SIZE, 1), np.float32),
    }


@pytest.fixture
def initial(network):
    return jax.device_get(network.init(jax.random.key(0), batch_of(0)["image"]))


@pytest.mark.parametrize("num_devices", [2, 4])
def test_the_same_numbers_on_any_number_of_devices(network, initial, num_devices):
    results = []
    for count in (1, num_devices):
        mesh = data_mesh(jax.devices()[:count])
        config = TrainSettings(BATCH, 1e-2, num_steps=12, schedule="cosine")
        parameters = loss_parameters(STAIN)
        state = create_state(initial, config, mesh, parameters)
        step = make_train_step(network, Kind.STAIN, config)
        for index in range(5):
            state, metrics = step(state, shard_batch(batch_of(index), mesh))
        results.append(jax.device_get((state.params, state.batch_stats, metrics)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


def test_one_step_of_adam_against_its_definition(network, initial):
    """Golden step: gradient by finite differences in float64, update by Adam's formula."""
    batch, variables = batch_of(0), initial

    def loss(bias):
        params = {**variables["params"], "Conv_1": {**variables["params"]["Conv_1"], "bias": bias}}
        output, _ = network.apply(
            {**variables, "params": params}, batch["image"], train=True, mutable=["batch_stats"]
        )
        return float(np.abs(np.asarray(output, np.float64) - batch["target"]).mean())

    bias = variables["params"]["Conv_1"]["bias"].astype(np.float64)
    slope = (loss(bias + 1e-3) - loss(bias - 1e-3)) / 2e-3
    # The first step of Adam is lr * g / (|g| + eps): its sign alone.
    expected = bias - 1e-2 * np.sign(slope)
    config = TrainSettings(BATCH, num_steps=1, learning_rate=1e-2)
    mesh = data_mesh()
    parameters = loss_parameters(STAIN)
    state = create_state(variables, config, mesh, parameters)
    step = make_train_step(network, Kind.STAIN, config)
    state, metrics = step(state, shard_batch(batch, mesh))
    np.testing.assert_allclose(state.variables["params"]["Conv_1"]["bias"], expected, rtol=1e-4)
    assert metrics["loss"] == pytest.approx(loss(bias), rel=1e-5)


def test_both_activations_of_the_nucleus_study_share_one_compilation(network, initial):
    config = TrainSettings(BATCH, num_steps=3, learning_rate=1e-2)
    mesh, batch = data_mesh(), batch_of(0)
    batch["target"] = (batch["target"] > 0).astype(np.float32)
    make_train_step.cache_clear()
    losses = []
    for task in (Task(Kind.SEMANTIC), Task(Kind.SEMANTIC, "shifted_sigmoid", slope=3.0)):
        step = make_train_step(network, task.kind, config)
        parameters = loss_parameters(task)
        state = create_state(initial, config, mesh, parameters)
        losses.append(float(step(state, shard_batch(batch, mesh))[1]["loss"]))
        outputs, _ = network.apply(initial, batch["image"], train=True, mutable=["batch_stats"])
        p = shifted_sigmoid(outputs, parameters.slope, parameters.centre)
        p, t = np.asarray(p, np.float64), batch["target"]
        expected = 1 - ((p * t).sum() + 1) / ((p + t - p * t).sum() + 1)
        assert losses[-1] == pytest.approx(expected, rel=1e-5)
    assert losses[0] != losses[1]
    assert step._cache_size() == 1
