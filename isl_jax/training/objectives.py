"""What each stage optimises: the network's raw output, through its activation, to a loss."""

import dataclasses

import jax

from isl_jax import losses
from isl_jax.models.heads import shifted_sigmoid

TARGETS = ("stain", "semantic", "distance_and_semantic")


@dataclasses.dataclass(frozen=True)
class Objective:
    """Loss of one stage; hashable, so that compiled steps can be shared between runs.

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

    def probability(self, logits: jax.Array) -> jax.Array:
        """Foreground probability 0..1 of a semantic logit."""
        if self.activation == "shifted_sigmoid":
            return shifted_sigmoid(logits, slope=self.slope)
        return jax.nn.sigmoid(logits)

    def __call__(
        self, outputs: jax.Array, targets: jax.Array, weight: jax.Array, alpha: jax.Array | float
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return (loss, named parts) of float32 `outputs` and `targets` `[B, H, W, K]`."""
        if self.target == "stain":
            loss = losses.l1(outputs, targets, weight)
            return loss, {"loss": loss}
        if self.target == "semantic":
            loss = losses.soft_iou(self.probability(outputs), targets, weight)
            return loss, {"loss": loss}
        loss, distance, semantic = losses.combined(outputs, targets, weight, alpha)
        return loss, {"loss": loss, "mse": distance, "bce": semantic}
