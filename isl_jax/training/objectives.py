"""What each stage optimises: the network's raw output, through its activation, to a loss."""

import dataclasses
from typing import Any

import flax.struct
import jax

from isl_jax.models.heads import shifted_sigmoid
from isl_jax.training import losses

TARGETS = ("stain", "semantic", "distance_and_semantic")


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


@dataclasses.dataclass(frozen=True)
class Objective:
    """What one stage learns and what its network's output means.

    `target` names what is learnt: `stain` (L1, no activation), `semantic` (soft IoU of the
    activated output) or `distance_and_semantic` (eq. 2). `activation` is `sigmoid`, or
    `shifted_sigmoid` with `slope` (eq. 1) for networks pretrained on a stain.
    """

    target: str
    activation: str = "sigmoid"
    slope: float = 1.0

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ValueError(f"unknown target {self.target!r}: choose one of {', '.join(TARGETS)}")
        if self.activation not in ("sigmoid", "shifted_sigmoid"):
            raise ValueError(
                f"unknown activation {self.activation!r}: choose sigmoid or shifted_sigmoid"
            )

    @property
    def num_outputs(self) -> int:
        """Channels that the network has to predict."""
        return 2 if self.target == "distance_and_semantic" else 1

    def loss_parameters(self, alpha: float = 1.0) -> LossParameters:
        """What `objective_loss` takes, with `alpha` of eq. (2)."""
        if self.activation == "shifted_sigmoid":
            return LossParameters(alpha=alpha, slope=self.slope, centre=0.5)
        return LossParameters(alpha=alpha, slope=1.0, centre=0.0)

    def probability(self, logits: jax.Array) -> jax.Array:
        """Foreground probability 0..1 of a semantic logit."""
        parameters = self.loss_parameters()
        return shifted_sigmoid(logits, parameters.slope, parameters.centre)


def objective_loss(
    target: str,
    outputs: jax.Array,
    targets: jax.Array,
    weight: jax.Array,
    parameters: LossParameters,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return (loss, named parts) of float32 `outputs` and `targets` `[B, H, W, K]`.

    `target` is `Objective.target`, `weight` `[B, H, W, 1]` is 0 where nothing counts.
    """
    if target == "stain":
        loss = losses.l1(outputs, targets, weight)
        return loss, {"loss": loss}
    if target == "semantic":
        probability = shifted_sigmoid(outputs, parameters.slope, parameters.centre)
        loss = losses.soft_iou(probability, targets, weight)
        return loss, {"loss": loss}
    loss, distance, semantic = losses.combined(outputs, targets, weight, parameters.alpha)
    return loss, {"loss": loss, "mse": distance, "bce": semantic}
