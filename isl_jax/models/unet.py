"""The U-Net of the paper (section 2): DenseNet encoder, nearest-neighbour decoder, one layer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from isl_jax.models.architecture import DECODER_FEATURES, STRIDE, encoder_config
from isl_jax.models.batch_norm import BatchNorm
from isl_jax.models.convolution import Conv, UpsampledConv
from isl_jax.models.densenet import DenseNet


class DecoderBlock(nn.Module):
    """Up-sample ×2, append the skip, twice (3×3 convolution, norm, ReLU)."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array | None, *, train: bool) -> jax.Array:
        """`[B, H, W, C]` and skip `[B, 2H, 2W, S]` to `[B, 2H, 2W, features]`."""
        y = UpsampledConv(self.features, name="conv1")(x, skip)
        y = BatchNorm(name="norm1")(y, train=train)
        y = Conv(self.features, 3, name="conv2")(y)
        return BatchNorm(name="norm2")(y, train=train)


class UNet(nn.Module):
    """`segmentation_models_pytorch.Unet(encoder, classes=out_channels)`.

    `apply(variables, x, train=False)`: image `[B, H, W, C]` to raw outputs `[B, H, W, K]`, float32
    whatever `compute_dtype` is (float64 for that). H and W are free: sides that are no multiples of
    32 are padded by reflection at the bottom and right, and cropped back. In training the batch
    statistics include the padding.
    """

    out_channels: int = 1
    encoder: str = "densenet121"
    compute_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Raw outputs; ValueError for an unknown encoder or an input that is not 4-D."""
        if x.ndim != 4:
            raise ValueError(
                f"images have shape {x.shape}, expected [batch, height, width, channels]"
            )
        height, width = x.shape[1:3]
        x = _pad_to_stride(jnp.asarray(x, self.compute_dtype))
        encoder = DenseNet(encoder_config(self.encoder), name="encoder")
        features = encoder(x, train=train)
        y = features.pop()
        for index, channels in enumerate(DECODER_FEATURES):
            skip = features.pop() if features else None
            y = DecoderBlock(channels, name=f"decoder{index}")(y, skip, train=train)
        # Maps are not rounded to bfloat16: near 255 its steps are 1.0, and ties make markers.
        y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
        y = Conv(self.out_channels, 3, use_bias=True, name="segmentation_head")(y)
        return y[:, :height, :width]


def _pad_to_stride(x: jax.Array) -> jax.Array:
    pads = [-size % STRIDE for size in x.shape[1:3]]
    if not any(pads):
        return x
    return jnp.pad(x, ((0, 0), (0, pads[0]), (0, pads[1]), (0, 0)), mode="reflect")
