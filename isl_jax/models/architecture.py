"""Sizes of the networks, named as in the peers; imports nothing."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DenseNetConfig:
    """Sizes of a DenseNet, named as in torchvision."""

    growth_rate: int = 32
    block_config: tuple[int, ...] = (6, 12, 24, 16)
    num_init_features: int = 64
    bn_size: int = 4


ENCODERS = {
    "densenet121": DenseNetConfig(),
    "densenet161": DenseNetConfig(48, (6, 12, 36, 24), 96),
    "densenet169": DenseNetConfig(32, (6, 12, 32, 32), 64),
    "densenet201": DenseNetConfig(32, (6, 12, 48, 32), 64),
    # For tests and dry runs: every kind of layer, 1/50 of the time. No pretrained weights exist.
    "tiny": DenseNetConfig(4, (2, 3, 2, 2), 8, 2),
}
DECODER_FEATURES = (256, 128, 64, 32, 16)
# Coarsest feature of the encoder: sides of an image are padded to multiples of it.
STRIDE = 32
# Input channels of every pretrained first convolution.
RGB = 3


def encoder_config(name: str) -> DenseNetConfig:
    """The encoder of that name; ValueError lists the known ones."""
    if name not in ENCODERS:
        raise ValueError(f"encoder {name!r}: choose one of {', '.join(ENCODERS)}")
    return ENCODERS[name]
