"""Batch normalisation as PyTorch defines it, with gradients written by hand.

Statistics and normalisation are two functions, so that a feature map read by many layers (every
map of a dense block) has its statistics computed once.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-5
# PyTorch's momentum 0.1 is the weight of the new value; this is the weight of the old one.
MOMENTUM = 0.9

Statistics = tuple[jax.Array, jax.Array]


@jax.custom_vjp
def batch_statistics(x: jax.Array) -> Statistics:
    """Mean and biased variance `[C]` of `x` `[B, H, W, C]`, float32 or wider.

    Under `jit` a batch split over devices gives the statistics of the whole batch.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    mean = jnp.mean(x, axis=(0, 1, 2), dtype=dtype)
    # Two passes: E[x²] − E[x]² loses all digits in float32 when the mean is large.
    return mean, jnp.mean(jnp.square(x.astype(dtype) - mean), axis=(0, 1, 2))


def _statistics_forward(x: jax.Array) -> tuple[Statistics, tuple[jax.Array, jax.Array]]:
    mean, variance = batch_statistics(x)
    return (mean, variance), (x, mean)


def _statistics_backward(
    residuals: tuple[jax.Array, jax.Array], gradients: Statistics
) -> tuple[jax.Array]:
    x, mean = residuals
    d_mean, d_variance = gradients
    count = x.size // x.shape[-1]
    # The variance's dependence on x through the mean is Σ(x − mean) = 0 and needs no pass.
    dx = (d_mean + 2 * d_variance * (x.astype(mean.dtype) - mean)) / count
    return (dx.astype(x.dtype),)


batch_statistics.defvjp(_statistics_forward, _statistics_backward)


def _affine(x: jax.Array, mean: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
    return (x.astype(mean.dtype) - mean) * scale + shift


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalise(
    relu: bool, x: jax.Array, mean: jax.Array, scale: jax.Array, shift: jax.Array
) -> jax.Array:
    y = _affine(x, mean, scale, shift)
    return (jax.nn.relu(y) if relu else y).astype(x.dtype)


def _normalise_forward(relu, x, mean, scale, shift):
    return _normalise(relu, x, mean, scale, shift), (x, mean, scale, shift)


def _normalise_backward(relu, residuals, dy):
    # The sign before the ReLU is computed again from x, so neither it nor a mask is stored.
    x, mean, scale, shift = residuals
    dy = dy.astype(mean.dtype)
    # Adds nothing, but makes x − mean depend on the gradient: else XLA finds that the forward pass
    # has computed it and keeps it until here, 30 % of a step's temporary memory.
    x = x + 0 * dy.astype(x.dtype)
    if relu:
        dy = jnp.where(_affine(x, mean, scale, shift) > 0, dy, 0)
    d_shift = jnp.sum(dy, axis=(0, 1, 2))
    d_scale = jnp.sum(dy * (x.astype(mean.dtype) - mean), axis=(0, 1, 2))
    return (dy * scale).astype(x.dtype), -scale * d_shift, d_scale, d_shift


_normalise.defvjp(_normalise_forward, _normalise_backward)


class BatchNorm(nn.Module):
    """`BatchNorm2d`, followed by a ReLU unless `relu=False`: `[B, H, W, C]` to the same shape.

    Epsilon 1e-5; running averages move by a tenth a step, the variance's unbiased as in PyTorch.
    """

    relu: bool = True

    @nn.compact
    def __call__(
        self, x: jax.Array, statistics: Statistics | None = None, *, train: bool
    ) -> jax.Array:
        """Normalise `x`, in training by `statistics` (default: those of `x`)."""
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        if train:
            mean, var = batch_statistics(x) if statistics is None else statistics
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased = var * (count / max(count - 1, 1))
                running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean
                running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * unbiased
        else:
            mean, var = running_mean.value, running_var.value
        return _normalise(self.relu, x, mean, scale * jax.lax.rsqrt(var + EPSILON), bias)
