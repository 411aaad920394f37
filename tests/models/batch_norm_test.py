"""What batch normalisation stores for its gradient."""

import jax
import jax.numpy as jnp

from isl_jax.models.batch_norm import BatchNorm

_SHAPE = (1, 64, 64, 32)


def stored_arrays(num_layers: int) -> float:
    """Temporary memory of the gradients of norm, ReLU, 1×1 convolution in a row, in activations."""
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), jnp.zeros(_SHAPE), train=True)

    def loss(kernels, x):
        for kernel in kernels:
            x, _ = norm.apply(variables, x, train=True, mutable=["batch_stats"])
            x = x @ kernel
        return jnp.sum(jnp.square(x))

    kernels = [jnp.ones(_SHAPE[-1:] * 2)] * num_layers
    compiled = jax.jit(jax.grad(loss)).lower(kernels, jnp.ones(_SHAPE)).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    return memory.temp_size_in_bytes / jnp.ones(_SHAPE).nbytes


def test_a_layer_stores_its_input_and_its_output():
    # Not x − mean as well, which the gradient computes again.
    assert round((stored_arrays(8) - stored_arrays(4)) / 4, 1) <= 2
