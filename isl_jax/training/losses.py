"""The losses of the four trainings, one function each.

All take network outputs and targets `[B, H, W, K]` in float32 and a `weight` `[B, H, W, 1]` that is
0 on padding (of small images and of incomplete batches) and 1 elsewhere; all return float32 scalars
and are finite, with finite gradients, when every weight is 0.
"""

import jax
import jax.numpy as jnp


def _weighted_mean(values: jax.Array, weight: jax.Array) -> jax.Array:
    total = jnp.sum(weight) * (values.size / weight.size)
    return jnp.sum(values * weight) / jnp.maximum(total, 1.0)


def l1(prediction: jax.Array, target: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean absolute error: the loss of the pretext task (the reference code's choice)."""
    return _weighted_mean(jnp.abs(prediction - target), weight)


def mse(prediction: jax.Array, target: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean squared error: the first term of eq. (2)."""
    return _weighted_mean(jnp.square(prediction - target), weight)


def bce_with_logits(logits: jax.Array, target: jax.Array, weight: jax.Array) -> jax.Array:
    """Binary cross entropy of `sigmoid(logits)`: the second term of eq. (2), without overflow."""
    values = jnp.maximum(logits, 0) - logits * target + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return _weighted_mean(values, weight)


def soft_iou(probability: jax.Array, target: jax.Array, weight: jax.Array) -> jax.Array:
    """Soft intersection over union, `1 - (Σpt + 1) / (Σp + Σt - Σpt + 1)`, over the whole batch.

    `probability` and `target` lie in 0..1. The 1 keeps an empty batch at loss 0.
    """
    intersection = jnp.sum(probability * target * weight)
    union = jnp.sum((probability + target) * weight) - intersection
    return 1.0 - (intersection + 1.0) / (union + 1.0)


def combined(
    outputs: jax.Array, targets: jax.Array, weight: jax.Array, alpha: jax.Array | float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Eq. (2): `MSE(distance) + alpha * BCEWithLogits(semantic)`.

    Channel 0 of `outputs` and `targets` is the distance map, channel 1 the semantic logit and mask.
    Returns (loss, mse, bce), so that the ratio of the two terms can be reported.
    """
    distance = mse(outputs[..., :1], targets[..., :1], weight)
    semantic = bce_with_logits(outputs[..., 1:], targets[..., 1:], weight)
    return distance + alpha * semantic, distance, semantic
