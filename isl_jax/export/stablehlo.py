"""StableHLO: the compiled network as a file that jax runs on CPU, CUDA and TPU without our code."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from isl_jax.export.check import check_equal, draw_images, exact_outputs
from isl_jax.inference.model import Model
from isl_jax.models.architecture import STRIDE
from isl_jax.models.heads import build_network

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo_bytes(model: Model) -> bytes:
    """Serialised function: standardised images `[B, H, W, C]` to raw `[B, H, W, K]`, float32.

    Weights included. B is free; H and W are multiples of 32. `jax.export.deserialize(data).call(x)`
    runs it; jax promises to read such files for six months of its versions at least.
    """
    info = model.info.network
    network = build_network(out_channels=info.out_channels, head=info.head, encoder=info.encoder)
    variables = jax.tree.map(jnp.asarray, model.variables)

    @jax.jit
    def forward(images: jax.Array) -> jax.Array:
        return jnp.asarray(network.apply(variables, images, train=False), jnp.float32)

    shape = export.symbolic_shape(f"b, {STRIDE}*h, {STRIDE}*w, {info.in_channels}")
    exported = export.export(forward, platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.float32))
    content = bytes(exported.serialize())
    images = draw_images(model, 64, 96)
    with jax.default_device(
        jax.devices("cpu")[0]
    ):  # the one of the platforms that computes exactly
        found = export.deserialize(bytearray(content)).call(jnp.asarray(images))
    check_equal(np.asarray(found), exact_outputs(model, images), "the StableHLO file")
    return content
