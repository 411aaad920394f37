"""Names and shapes of the peers' state dicts, written out from the architecture."""

import re
from collections.abc import Mapping

import numpy as np

from isl_jax.models.architecture import DECODER_FEATURES, RGB, DenseNetConfig

StateDict = Mapping[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]


def expected_shapes(arrays: StateDict, config: DenseNetConfig) -> Shapes:
    """Every name and shape of the network that `arrays` most likely holds."""
    prefix = "u_net." if any(name.startswith("u_net.") for name in arrays) else ""

    def size(name: str, axis: int, default: int) -> int:
        array = arrays.get(prefix + name)
        return default if array is None or array.ndim != 4 else array.shape[axis]

    shapes, channels = _encoder_shapes(config, size("encoder.features.conv0.weight", 1, RGB))
    if any(not name.startswith(f"{prefix}encoder.") for name in arrays):
        outputs = size("segmentation_head.0.weight", 0, 1)
        shapes |= _decoder_shapes(channels, outputs)
    shapes = {prefix + name: shape for name, shape in shapes.items()}
    if prefix:
        is_normalised = any(re.match(r"block_\d\.1\.", name) for name in arrays)
        for index, inputs in ((1, 1), (2, 2)):
            shapes |= _convolution(f"block_{index}.0", 3, inputs, 2)
            shapes[f"block_{index}.0.bias"] = (2,)
            if is_normalised:
                shapes |= _norm(f"block_{index}.1", 2)
    return shapes


def _encoder_shapes(config: DenseNetConfig, in_channels: int) -> tuple[Shapes, list[int]]:
    """Names and shapes, and the channels of the five features."""
    features = config.num_init_features
    wide = config.bn_size * config.growth_rate
    shapes = _convolution("conv0", 7, in_channels, features) | _norm("norm0", features)
    channels = [features]
    for block, num_layers in enumerate(config.block_config, start=1):
        for index in range(1, num_layers + 1):
            layer = f"denseblock{block}.denselayer{index}"
            shapes |= _norm(f"{layer}.norm1", features)
            shapes |= _convolution(f"{layer}.conv1", 1, features, wide)
            shapes |= _norm(f"{layer}.norm2", wide)
            shapes |= _convolution(f"{layer}.conv2", 3, wide, config.growth_rate)
            features += config.growth_rate
        channels.append(features)
        if block < len(config.block_config):
            shapes |= _norm(f"transition{block}.norm", features)
            shapes |= _convolution(f"transition{block}.conv", 1, features, features // 2)
            features //= 2
    shapes |= _norm(f"norm{len(config.block_config) + 1}", features)
    return {f"encoder.features.{name}": shape for name, shape in shapes.items()}, channels


def _decoder_shapes(channels: list[int], out_channels: int) -> Shapes:
    shapes: Shapes = {}
    *skips, inputs = channels
    for index, features in enumerate(DECODER_FEATURES):
        inputs += skips.pop() if skips else 0
        for conv in (1, 2):
            block = f"decoder.blocks.{index}.conv{conv}"
            shapes |= _convolution(f"{block}.0", 3, inputs, features) | _norm(
                f"{block}.1", features
            )
            inputs = features
    shapes |= _convolution("segmentation_head.0", 3, inputs, out_channels)
    shapes["segmentation_head.0.bias"] = (out_channels,)
    return shapes


def _convolution(name: str, size: int, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, size, size)}


def _norm(name: str, features: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (features,) for leaf in leaves}
