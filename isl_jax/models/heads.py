"""What stands after the U-Net in each of the four trainings."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from isl_jax.models.batch_norm import BatchNorm
from isl_jax.models.convolution import Conv
from isl_jax.models.unet import UNet

Head = Literal["none", "paper", "reference"]


def shifted_sigmoid(
    x: jax.Array, slope: jax.Array | float = 1.0, centre: jax.Array | float = 0.5
) -> jax.Array:
    """Eq. (1): `1 / (1 + exp(-slope · (x - centre)))`, any shape, values in 0..1.

    Makes a probability of a predicted stain whose scale is 0..1. With centre 0 and slope 1 it is
    the plain sigmoid.
    """
    return jax.nn.sigmoid(slope * (x - centre))


class TwoConvHead(nn.Module):
    """Stain `[B, H, W, 1]` to distance and semantic logit `[B, H, W, 2]` (section 3.2, Fig. 5b).

    "paper": two plain 3×3 convolutions. "reference": each followed by norm and ReLU, as in the
    authors' code, so that the semantic logit is never negative.
    """

    kind: Literal["paper", "reference"]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Outputs in the dtype of `x`, which is float32 after a `UNet`."""
        for index in (1, 2):
            x = Conv(2, 3, use_bias=True, name=f"conv{index}")(x)
            if self.kind == "reference":
                x = BatchNorm(name=f"norm{index}")(x, train=train)
        return x


class TransferredUNet(nn.Module):
    """A one-channel U-Net followed by `TwoConvHead`: `[B, H, W, C]` to `[B, H, W, 2]`."""

    kind: Literal["paper", "reference"]
    encoder: str = "densenet121"
    compute_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Raw outputs: distance, semantic logit."""
        unet = UNet(1, self.encoder, self.compute_dtype, name="unet")
        return TwoConvHead(self.kind, name="head")(unet(x, train=train), train)


def build_network(
    *,
    out_channels: int,
    head: Head = "none",
    encoder: str = "densenet121",
    compute_dtype: Any = jnp.float32,
) -> nn.Module:
    """A plain `UNet` (`head="none"`), or a one-channel one with the paper's or reference's head."""
    if head == "none":
        return UNet(out_channels, encoder, compute_dtype)
    if head not in ("paper", "reference"):
        raise ValueError(f"head={head!r}: choose none, paper or reference")
    if out_channels != 2:
        raise ValueError(f"head={head!r} has 2 outputs, distance and semantic, not {out_channels}")
    return TransferredUNet(head, encoder, compute_dtype)
