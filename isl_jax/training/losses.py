"""The losses of the four trainings, one function each, and which task has which.

All take network outputs and targets `[B, H, W, K]` in float32 and a `weight` `[B, H, W, 1]` that is
0 on padding (of small images and of incomplete batches) and 1 elsewhere; all return float32 scalars
and are finite, with finite gradients, when every weight is 0.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from isl_jax.models.heads import shifted_sigmoid
from isl_jax.task import Kind, Task


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Alpha of eq. (2): a number, or `auto`, the ratio of MSE to BCE of the untrained network.

    `auto` averages over the first `alpha_batches` batches.
    """

    alpha: str | float = "auto"
    alpha_batches: int = 8

    def __post_init__(self) -> None:
        if self.alpha != "auto":
            try:
                float(self.alpha)
            except ValueError:
                raise ValueError(
                    f"loss alpha={self.alpha!r} is neither a number nor auto"
                ) from None
        if self.alpha_batches < 1:
            raise ValueError(f"loss.alpha_batches={self.alpha_batches}: choose 1 or more")


@flax.struct.dataclass
class LossParameters:
    """Numbers of a loss that enter the compiled step as arguments, float32 scalars.

    Runs that differ in nothing else share one compilation: both arms of the nucleus study do.
    `alpha` is that of eq. (2); `slope` and `centre` make the probability
    `sigmoid(slope · (logit - centre))`, eq. (1).
    """

    alpha: Any
    slope: Any
    centre: Any


def loss_parameters(task: Task, alpha: float = 1.0) -> LossParameters:
    """What `task_loss` takes, with `alpha` of eq. (2)."""
    slope = task.slope if task.activation == "shifted_sigmoid" else 1.0
    return LossParameters(alpha=alpha, slope=slope, centre=task.centre)


def task_loss(
    kind: Kind,
    outputs: jax.Array,
    targets: jax.Array,
    weight: jax.Array,
    parameters: LossParameters,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return (loss, named parts) of the network's raw `outputs`, through their activation."""
    if kind == Kind.STAIN:
        loss = l1(outputs, targets, weight)
        return loss, {"loss": loss}
    if kind == Kind.SEMANTIC:
        probability = shifted_sigmoid(outputs, parameters.slope, parameters.centre)
        loss = soft_iou(probability, targets, weight)
        return loss, {"loss": loss}
    loss, distance, semantic = combined(outputs, targets, weight, parameters.alpha)
    return loss, {"loss": loss, "mse": distance, "bce": semantic}


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
