"""Outputs of the heads."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isl_jax.models.heads import build_network, shifted_sigmoid

Variables = dict[str, Any]


@pytest.mark.parametrize("slope", [1.0, 10.0])
def test_shifted_sigmoid_is_equation_1(slope: float) -> None:
    x = np.linspace(-2, 3, 11)
    expected = [1 / (1 + math.exp(-slope * (value - 0.5))) for value in x]
    np.testing.assert_allclose(shifted_sigmoid(jnp.asarray(x), slope), expected, rtol=1e-5)


@pytest.mark.parametrize(("head", "lowest"), [("paper", -np.inf), ("reference", 0.0)])
def test_only_the_reference_head_is_never_negative(
    tiny_variables: Callable[..., Variables], head: Any, lowest: float
) -> None:
    network = build_network(out_channels=2, head=head, encoder="tiny")
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    y = jax.jit(network.apply)(tiny_variables(head, 2), x)
    assert y.shape == (1, 32, 32, 2)
    assert (np.asarray(y) >= lowest).all()
    assert (np.asarray(y) < 0).any() == (head == "paper")


def test_impossible_networks_are_named() -> None:
    with pytest.raises(ValueError, match="2 outputs"):
        build_network(out_channels=1, head="paper")
    with pytest.raises(ValueError, match="choose none, paper or reference"):
        build_network(out_channels=2, head="linear")  # type: ignore[arg-type]
