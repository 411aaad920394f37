"""Arithmetic of the convolutions: how exact products are, and the sums over devices."""

import collections
import re
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from isl_jax.models import convolution
from isl_jax.models.convolution import Conv, UpsampledConv
from isl_jax.models.heads import build_network


class EveryConvolution(nn.Module):
    """One of each kind that the network has."""

    @nn.compact
    def __call__(self, x):
        skip = x
        x = Conv(4, 7, stride=2, name="first")(x)
        x = Conv(4, 1, name="product")(x)
        x = UpsampledConv(4, name="upsampled")(x, skip)
        return Conv(2, 3, use_bias=True, name="last")(x.astype(jnp.float32))


def test_float32_products_are_asked_for_in_float32_on_every_device():
    network, x = EveryConvolution(), jnp.ones((2, 8, 8, 3))
    variables = network.init(jax.random.key(0), x)
    loss = jax.grad(lambda v: network.apply(v, x).sum())
    told = str(jax.make_jaxpr(loss)(variables))
    products = re.findall(r"(?:conv_general_dilated|dot_general)\[(.*?)\] ", told, re.DOTALL)
    # Forward: 4 convolutions of one up-sampled, one of its skip, 3 others; each has its gradients.
    assert len(products) > 16
    for parameters in products:
        assert re.search(r"precision=\(Precision.HIGHEST, Precision.HIGHEST\)", parameters), told


def all_reduced(folder) -> collections.Counter:
    """How many sums over devices there are of each dtype, before a backend changes them."""
    (program,) = folder.glob("*after_spmd-partitioning*")
    return collections.Counter(
        re.findall(r"= \(?([a-z0-9]+)\[[^ ]* all-reduce\(", program.read_text())
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_are_summed_over_devices_in_float32(tmp_path, dtype):
    network = EveryConvolution()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 8, 8, 3)).astype(np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(np.float32), shapes)
    # A program that no cache holds: what comes from there goes through no pass, and is not dumped.
    new = 1 + time.time_ns() % 1_000_003 / 1_000_003
    gradient = jax.jit(
        jax.grad(lambda v, x: new * jnp.square(network.apply(v, x.astype(dtype))).mean())
    )
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    everywhere = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    dump = {"xla_dump_to": str(tmp_path), "xla_dump_hlo_pass_re": "spmd.*"}
    compiled = gradient.lower(everywhere, split).compile(compiler_options=dump)
    sums = all_reduced(tmp_path)
    assert sums["f32"] >= 6 and set(sums) == {"f32"}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-2 * np.abs(b).max()),
        compiled(everywhere, split),
        gradient(variables, x),
    )


@pytest.mark.parametrize("head", ["none", "paper", "reference"])
def test_maps_are_not_rounded_to_bfloat16(tiny_variables, head):
    x = np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype(np.float32)
    network = build_network(out_channels=2, head=head, encoder="tiny", compute_dtype=jnp.bfloat16)
    maps = jax.jit(network.apply)(tiny_variables(head, 2), x)
    assert maps.dtype == jnp.float32
    positive = maps[maps > 0]  # the reference's head ends in a ReLU
    is_rounded = positive == positive.astype(jnp.bfloat16).astype(jnp.float32)
    assert np.mean(is_rounded) < 0.05


def test_one_convolution_computes_what_four_do():
    """What runs off the CPU, in float64, with its gradients."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernels, wanted = (
            jnp.asarray(rng.standard_normal(shape))
            for shape in ((2, 5, 7, 3), (4, 2, 2, 3, 6), (4, 2, 5, 7, 6))
        )

        def loss(function, x, kernels):
            return jnp.sum(wanted * jnp.stack(function(x, list(kernels))))

        one, four = (
            jax.value_and_grad(loss, (1, 2))(function, x, kernels)
            for function in (convolution._one_convolution, convolution._four_convolutions)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), one, four)
