"""DenseNet encoder (Huang et al. 2017), equal to torchvision's, in the form that runs fast."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from isl_jax.models.architecture import DenseNetConfig
from isl_jax.models.batch_norm import BatchNorm, Statistics
from isl_jax.models.convolution import Conv


@flax.struct.dataclass
class Features:
    """What a dense block has made so far, and the statistics of all but the newest.

    Every layer normalises features that earlier layers have seen: their batch statistics are the
    same for all, so they are computed once a feature.
    """

    x: jax.Array
    new: jax.Array
    known: Statistics | None = None


class DenseLayer(nn.Module):
    """norm, ReLU, 1×1 convolution, norm, ReLU, 3×3 convolution: `growth_rate` new features."""

    config: DenseNetConfig

    @nn.compact
    def __call__(self, features: Features, train: bool) -> Features:
        """`[B, H, W, C]` to `[B, H, W, C + growth_rate]`."""
        config = self.config
        y, statistics = _normalised(BatchNorm(name="norm1"), features, train)
        y = Conv(config.bn_size * config.growth_rate, 1, name="conv1")(y)
        y = BatchNorm(name="norm2")(y, train=train)
        new = Conv(config.growth_rate, 3, name="conv2")(y)
        return Features(jnp.concatenate([features.x, new], axis=-1), new, statistics)


def _normalised(norm: BatchNorm, features: Features, train: bool) -> tuple[jax.Array, Statistics]:
    return norm.joined(features.x, features.new, features.known, train=train)


class DenseBlock(nn.Module):
    """Layers that each read all features before them and append their own."""

    config: DenseNetConfig
    num_layers: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Features:
        """`[B, H, W, C]` to `[B, H, W, C + num_layers · growth_rate]`."""
        features = Features(x, x)
        for index in range(1, self.num_layers + 1):
            features = DenseLayer(self.config, name=f"denselayer{index}")(features, train)
        return features


class DenseNet(nn.Module):
    """Encoder: image `[B, H, W, C]`, H and W multiples of 32, to features at strides 2 … 32.

    Each feature is what the U-Net's skips take: after norm0 and ReLU, after each transition's norm
    and ReLU (before its convolution and pooling), and after norm5 without ReLU.
    """

    config: DenseNetConfig = DenseNetConfig()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> list[jax.Array]:
        """Features, finest first."""
        config = self.config
        x = Conv(config.num_init_features, 7, stride=2, name="conv0")(x)
        x = BatchNorm(name="norm0")(x, train=train)
        features = [x]
        x = max_pool(x)
        last = len(config.block_config)
        for index, num_layers in enumerate(config.block_config, start=1):
            block = DenseBlock(config, num_layers, name=f"denseblock{index}")(x, train)
            if index == last:
                break
            x, _ = _normalised(BatchNorm(name=f"transition{index}_norm"), block, train)
            features.append(x)
            # Pooling and a 1×1 convolution commute; in this order the convolution is a quarter.
            x = average_pool(x)
            x = Conv(x.shape[-1] // 2, 1, name=f"transition{index}_conv")(x)
        x, _ = _normalised(BatchNorm(relu=False, name="norm5"), block, train)
        return [*features, x]


def max_pool(x: jax.Array) -> jax.Array:
    """Maximum of 3×3 pixels at stride 2, PyTorch's symmetric padding: `[B, H/2, W/2, C]`.

    H and W are even. Of equal values the first, row by row, takes the gradient, as in PyTorch.
    """
    x = jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0)), constant_values=-jnp.inf)
    # Selections along one axis at a time: the gradient of XLA's window reduction searches each
    # window again, with index arrays as large as the image.
    return _max_of_three(_max_of_three(x, axis=2), axis=1)


def _max_of_three(x: jax.Array, *, axis: int) -> jax.Array:
    first, second, third = (
        jax.lax.slice_in_dim(x, start, start + x.shape[axis] - 2, 2, axis) for start in range(3)
    )
    larger = jnp.where(first >= second, first, second)
    return jnp.where(larger >= third, larger, third)


def average_pool(x: jax.Array) -> jax.Array:
    """Mean of 2×2 pixels: `[B, H, W, C]` to `[B, H // 2, W // 2, C]`, an odd last row left out."""
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
