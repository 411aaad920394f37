from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from isl_jax.models.batch_norm import BatchNorm
from isl_jax.models.convolution import convolve, convolve_upsampled
from isl_jax.models.densenet import average_pool, max_pool
from isl_jax.models.unet import UNet

Variables = dict[str, Any]
TINY = UNet(1, "tiny")


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("size", [(32, 64), (33, 70), (1, 1), (5, 97)])
def test_any_size_is_padded_by_reflection_and_cropped_back(
    tiny_variables: Callable[..., Variables], size: tuple[int, int]
) -> None:
    x = images(2, *size, 3)
    y = jax.jit(TINY.apply)(tiny_variables(), x)
    assert y.shape == (2, *size, 1)
    pads = [(0, 0), *((0, -side % 32) for side in size), (0, 0)]
    padded = jax.jit(TINY.apply)(tiny_variables(), np.pad(x, pads, mode="reflect"))
    np.testing.assert_allclose(y, padded[:, : size[0], : size[1]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_split_over_devices_equals_one_device(
    tiny_variables: Callable[..., Variables], train: bool
) -> None:
    x = images(4, 32, 32, 3) + np.arange(4, dtype=np.float32)[:, None, None, None]
    apply = jax.jit(lambda v, x: TINY.apply(v, x, train=train, mutable=["batch_stats"]))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    variables = jax.device_put(tiny_variables(), NamedSharding(mesh, PartitionSpec()))
    together, alone = apply(variables, split), apply(tiny_variables(), x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), together, alone
    )


def test_bfloat16_keeps_float32_state_and_maps(
    tiny_variables: Callable[..., Variables],
) -> None:
    network = UNet(1, "tiny", jnp.bfloat16)
    x = images(2, 32, 32, 3)
    apply = jax.jit(lambda v, x: network.apply(v, x, train=True, mutable=["batch_stats"]))
    y, updates = apply(tiny_variables(), x)
    assert y.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {np.dtype("float32")}


def test_clear_errors() -> None:
    with pytest.raises(ValueError, match="choose one of densenet121"):
        UNet(1, "resnet50").apply({}, images(1, 32, 32, 3))
    with pytest.raises(ValueError, match=r"shape \(32, 32, 3\), expected \[batch"):
        TINY.apply({}, images(32, 32, 3))


def test_average_pool_leaves_an_odd_row_out() -> None:
    x = images(1, 5, 4, 2)
    expected = nn.avg_pool(x, (2, 2), (2, 2))
    np.testing.assert_allclose(average_pool(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("relu", [True, False])
def test_batch_norm_gradients_equal_automatic_ones(relu: bool) -> None:
    def automatic(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        y = (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias
        return jax.nn.relu(y) if relu else y

    def ours(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        stats = {"mean": jnp.zeros(3, x.dtype), "var": jnp.ones(3, x.dtype)}
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
        return BatchNorm(relu=relu).apply(variables, x, train=True, mutable=["batch_stats"])[0]

    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, weight = rng.standard_normal((2, 2, 4, 5, 3)) + 7
        inputs = tuple(map(jnp.asarray, (x, *rng.standard_normal((2, 3)))))
        theirs, mine = (
            jax.jit(jax.grad(lambda *a, f=f: jnp.sum(f(*a) * weight), (0, 1, 2)))(*inputs)
            for f in (automatic, ours)
        )
        for expected, found in zip(theirs, mine, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_max_pool_and_its_gradient_take_the_first_of_equal_values():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (2, 8, 12, 3)).astype(np.float32)  # many ties
    weights = rng.standard_normal((2, 4, 6, 3)).astype(np.float32)
    expected, gradient = np.empty_like(weights), np.zeros_like(x)
    for b, i, j, c in np.ndindex(*weights.shape):
        rows = slice(max(2 * i - 1, 0), 2 * i + 2)
        columns = slice(max(2 * j - 1, 0), 2 * j + 2)
        window = x[b, rows, columns, c]
        row, column = np.unravel_index(window.argmax(), window.shape)  # the first, row by row
        expected[b, i, j, c] = window.max()
        gradient[b, rows.start + row, columns.start + column, c] += weights[b, i, j, c]
    pooled, pullback = jax.vjp(max_pool, x)
    np.testing.assert_array_equal(pooled, expected)
    np.testing.assert_allclose(pullback(jnp.asarray(weights))[0], gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 1, 1, 2)])
def test_convolving_up_sampled_is_up_sampling_then_convolving(shape):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal(shape, np.float32))
    kernel = jnp.asarray(rng.standard_normal((3, 3, shape[-1], 5), np.float32))

    def plain(x, kernel):
        return convolve(x.repeat(2, axis=1).repeat(2, axis=2), kernel)

    expected, plain_pullback = jax.vjp(plain, x, kernel)
    found, pullback = jax.vjp(convolve_upsampled, x, kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(pullback(expected), plain_pullback(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
