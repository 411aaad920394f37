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


def _sums(*terms: jax.Array) -> jax.Array:
    """Sums `[N, C]` of N images `[B, H, W, C]`, all of them as one result.

    First along the width, then of all that is left: XLA does both together in two kernels, and
    devices that share a batch add up once.
    """
    rows = jax.lax.optimization_barrier([term.sum(2) for term in terms])
    return jnp.sum(jnp.concatenate(rows, axis=2), axis=(0, 1)).reshape(len(terms), -1)


@jax.custom_vjp
def batch_statistics(x: jax.Array, about: jax.Array) -> Statistics:
    """Mean and biased variance `[C]` of `x` `[B, H, W, C]`, float32 or wider.

    In one pass: `about` `[C]` is near the mean, or E[x²] − E[x]² would lose all digits in float32
    where the mean is large. Under `jit` a batch split over devices gives the statistics of the
    whole batch.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    count = x.size // x.shape[-1]
    apart = x.astype(dtype) - about
    mean, square = _sums(apart, jnp.square(apart)) / count
    return mean + about, jnp.maximum(square - jnp.square(mean), 0)


def _statistics_forward(x: jax.Array, about: jax.Array):
    mean, variance = batch_statistics(x, about)
    return (mean, variance), (x, mean)


def _statistics_backward(residuals: tuple[jax.Array, jax.Array], gradients: Statistics):
    x, mean = residuals
    d_mean, d_variance = gradients
    count = x.size // x.shape[-1]
    # The variance's dependence on x through the mean is Σ(x − mean) = 0 and needs no pass.
    dx = (d_mean + 2 * d_variance * (x.astype(mean.dtype) - mean)) / count
    return dx.astype(x.dtype), jnp.zeros_like(mean)


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


def _passed(relu, x, affine, dy):
    dy = dy.astype(affine[0].dtype)
    return jnp.where(_affine(x, *affine) > 0, dy, 0) if relu else dy


def _normalise_backward(relu, residuals, dy):
    # The sign before the ReLU is computed again from x, so neither it nor a mask is stored; behind
    # barriers, or XLA would find that it is the same each time, and store it. Adding nothing makes
    # x − mean depend on the gradient, for the CPU, whose compiler drops the barriers before it
    # looks: it would keep the forward pass's until here, 30 % of a step's temporary memory.
    x, *affine = residuals
    x = x + 0 * dy.astype(x.dtype)
    affine = jax.lax.optimization_barrier(affine)
    passed = _passed(relu, x, affine, dy)
    d_shift, d_scale = _sums(passed, passed * (x.astype(affine[0].dtype) - affine[0]))
    affine = jax.lax.optimization_barrier(affine)
    scale = affine[1]
    passed = _passed(relu, x, affine, dy)
    return (passed * scale).astype(x.dtype), -scale * d_shift, d_scale, d_shift


_normalise.defvjp(_normalise_forward, _normalise_backward)


class BatchNorm(nn.Module):
    """`BatchNorm2d`, followed by a ReLU unless `relu=False`: `[B, H, W, C]` to the same shape.

    Epsilon 1e-5; running averages move by a tenth a step, the variance's unbiased as in PyTorch.
    """

    relu: bool = True

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise `x`, in training by its own statistics."""
        return self.joined(x, x, None, train=train)[0]

    @nn.compact
    def joined(
        self, x: jax.Array, new: jax.Array, known: Statistics | None, *, train: bool
    ) -> tuple[jax.Array, Statistics]:
        """Normalise `x`, whose last channels are `new` and whose others have `known` statistics.

        Returns the statistics of all channels too, which are the running ones unless in training.
        """
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        if train:
            about = running_mean.value[-new.shape[-1] :]
            mean, var = batch_statistics(new, about)
            if known is not None:
                mean, var = (jnp.concatenate(pair) for pair in zip(known, (mean, var), strict=True))
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased = var * (count / max(count - 1, 1))
                running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean
                running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * unbiased
        else:
            mean, var = running_mean.value, running_var.value
        y: jax.Array = _normalise(self.relu, x, mean, scale * jax.lax.rsqrt(var + EPSILON), bias)
        return y, (mean, var)
