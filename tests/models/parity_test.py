"""The full-size network against what the PyTorch original computed, to the last digits."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from isl_jax.models.architecture import encoder_config
from isl_jax.models.densenet import DenseNet
from isl_jax.models.heads import build_network
from isl_jax.models.port import torch_from_variables, variables_from_torch

FLOAT64 = 1e-9
FLOAT32 = 2e-4


def relative_error(ours: Any, theirs: np.ndarray) -> float:
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


def nhwc(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1)


@dataclasses.dataclass
class Run:
    """What our network computed from the oracle's weights and input, in NHWC."""

    evaluated: jax.Array
    trained: jax.Array
    gradients: dict[str, np.ndarray]
    after_first_step: dict[str, np.ndarray]
    losses: list[float]
    evaluated_after: jax.Array


def run_network(oracle: Any, state_dict: dict[str, np.ndarray], classes: int) -> Run:
    network = build_network(out_channels=classes, compute_dtype=jnp.float64)
    variables = jax.tree.map(jnp.asarray, variables_from_torch(state_dict))
    x, target = nhwc(oracle["x"]), nhwc(oracle[f"target{classes}"])
    optimizer = optax.adam(1e-3, b1=0.9, b2=0.999, eps=1e-8)

    @jax.jit
    def evaluate(variables: Any) -> jax.Array:
        return network.apply(variables, x, train=False)  # type: ignore[return-value]

    def loss(params: Any, batch_stats: Any) -> Any:
        tree = {"params": params, "batch_stats": batch_stats}
        y, updates = network.apply(tree, x, train=True, mutable=["batch_stats"])
        return jnp.abs(y - target).mean(), (y, updates["batch_stats"])

    @jax.jit
    def step(params: Any, batch_stats: Any, state: Any) -> Any:
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, (y, batch_stats)), gradients = gradient(params, batch_stats)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), batch_stats, state, value, y, gradients

    params, batch_stats = variables["params"], variables["batch_stats"]
    state = optimizer.init(params)
    steps = []
    for _ in range(3):
        params, batch_stats, state, value, y, gradients = step(params, batch_stats, state)
        steps.append((float(value), y, gradients, batch_stats))
    _, y, gradients, first_stats = steps[0]
    return Run(
        evaluated=evaluate(variables),
        trained=y,
        gradients=torch_from_variables({"params": gradients, "batch_stats": {}}),
        after_first_step=torch_from_variables({"params": {}, "batch_stats": first_stats}),
        losses=[value for value, *_ in steps],
        evaluated_after=evaluate({"params": params, "batch_stats": batch_stats}),
    )


@pytest.fixture(scope="module", params=[1, 2], ids=["classes1", "classes2"])
def classes(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def run(
    unet_oracle: Any, drawn_state_dict: Callable[[int], dict[str, np.ndarray]], classes: int
) -> Iterator[Run]:
    with jax.enable_x64(True):
        yield run_network(unet_oracle, drawn_state_dict(classes), classes)


def test_float64_outputs(run: Run, unet_oracle: Any, classes: int) -> None:
    assert relative_error(run.evaluated, nhwc(unet_oracle[f"eval{classes}"])) < FLOAT64
    assert relative_error(run.trained, nhwc(unet_oracle[f"train{classes}"])) < FLOAT64


def test_float64_gradients(run: Run, unet_oracle: Any, classes: int) -> None:
    names = unet_oracle[f"grad_names{classes}"]
    assert set(names) == set(run.gradients)
    norms = np.array([np.linalg.norm(run.gradients[name]) for name in names])
    np.testing.assert_allclose(norms, unet_oracle[f"grad_norms{classes}"], rtol=FLOAT64)
    whole = {n.split(":")[1]: a for n, a in unet_oracle.items() if n.startswith(f"grad{classes}:")}
    assert len(whole) == 4
    for name, expected in whole.items():
        assert relative_error(run.gradients[name], expected) < FLOAT64, name


def test_float64_running_statistics(run: Run, unet_oracle: Any, classes: int) -> None:
    prefix = f"after_step1_{classes}:"
    expected = {n.removeprefix(prefix): a for n, a in unet_oracle.items() if n.startswith(prefix)}
    assert len(expected) == 6
    for name, array in expected.items():
        assert relative_error(run.after_first_step[name], array) < FLOAT64, name


def test_float64_three_adam_steps(run: Run, unet_oracle: Any, classes: int) -> None:
    np.testing.assert_allclose(run.losses, unet_oracle[f"losses{classes}"], rtol=FLOAT64)
    after = nhwc(unet_oracle[f"eval_after3_{classes}"])
    assert relative_error(run.evaluated_after, after) < FLOAT64


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", FLOAT64), ("float32", FLOAT32)])
def test_encoder_features(
    unet_oracle: Any, drawn_state_dict: Callable[[int], Any], dtype: str, tolerance: float
) -> None:
    with jax.enable_x64(dtype == "float64"):
        variables = variables_from_torch(drawn_state_dict(1))
        encoder = {group: tree["encoder"] for group, tree in variables.items()}
        encoder = jax.tree.map(lambda array: jnp.asarray(array, dtype), encoder)
        x = jnp.asarray(nhwc(unet_oracle["x"]), dtype)
        network = DenseNet(encoder_config("densenet121"))
        features = jax.jit(lambda v, x: network.apply(v, x, train=False))(encoder, x)
    assert len(features) == 5
    for index, feature in enumerate(features, start=1):
        expected = nhwc(unet_oracle[f"eval_feature{index}"])
        assert relative_error(feature[..., :8], expected) < tolerance, index


def test_float32_outputs(
    unet_oracle: Any, drawn_state_dict: Callable[[int], Any], classes: int
) -> None:
    variables = variables_from_torch(drawn_state_dict(classes))
    variables = jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), variables)
    network = build_network(out_channels=classes)
    x = jnp.asarray(nhwc(unet_oracle["x"]), jnp.float32)

    @jax.jit
    def outputs(variables: Any) -> Any:
        trained, _ = network.apply(variables, x, train=True, mutable=["batch_stats"])
        return network.apply(variables, x, train=False), trained

    evaluated, trained = outputs(variables)
    assert relative_error(evaluated, nhwc(unet_oracle[f"eval{classes}"])) < FLOAT32
    assert relative_error(trained, nhwc(unet_oracle[f"train{classes}"])) < FLOAT32


def test_parameter_counts(drawn_state_dict: Callable[[int], Any]) -> None:
    for classes, count in ((1, 13_607_633), (2, 13_607_778)):
        state_dict = drawn_state_dict(classes)
        assert len(state_dict) == 787
        learned = (a for n, a in state_dict.items() if n.endswith(("weight", "bias")))
        assert sum(a.size for a in learned) == count
