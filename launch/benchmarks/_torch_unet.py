"""The network as PyTorch users have it: torchvision's DenseNet-121 in the peer's U-Net.

Written from the architecture, with the peer's state-dict names, so that the exported weights load
with `strict=True`; needs torch and nothing else.
"""

import torch
import torch.nn.functional as F
from torch import nn

from isl_jax.models.architecture import DECODER_FEATURES, DenseNetConfig


class DenseLayer(nn.Module):
    """One layer of a dense block."""

    def __init__(self, inputs: int, config: DenseNetConfig) -> None:
        super().__init__()
        wide = config.bn_size * config.growth_rate
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, wide, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, config.growth_rate, 3, padding=1, bias=False)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """New features of those so far."""
        x = torch.cat(features, 1)
        x = self.conv1(F.relu(self.norm1(x), inplace=True))
        return self.conv2(F.relu(self.norm2(x), inplace=True))


class Transition(nn.Module):
    """Norm, ReLU (the skip), convolution, pooling."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, inputs // 2, 1, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Next input, and the skip."""
        skip = F.relu(self.norm(x), inplace=True)
        return F.avg_pool2d(self.conv(skip), 2), skip


class Encoder(nn.Module):
    """Features at strides 2 … 32."""

    def __init__(self, config: DenseNetConfig) -> None:
        super().__init__()
        features = config.num_init_features
        self.features = nn.Module()
        self.features.conv0 = nn.Conv2d(3, features, 7, stride=2, padding=3, bias=False)
        self.features.norm0 = nn.BatchNorm2d(features)
        self.channels = [features]
        self.blocks = list(enumerate(config.block_config, start=1))
        for block, num_layers in self.blocks:
            layers = nn.Module()
            for index in range(1, num_layers + 1):
                setattr(layers, f"denselayer{index}", DenseLayer(features, config))
                features += config.growth_rate
            setattr(self.features, f"denseblock{block}", layers)
            self.channels.append(features)
            if block < len(self.blocks):
                setattr(self.features, f"transition{block}", Transition(features))
                features //= 2
        self.features.norm5 = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features, finest first."""
        parts = self.features
        x = F.relu(parts.norm0(parts.conv0(x)), inplace=True)
        skips = [x]
        x = F.max_pool2d(x, 3, 2, 1)
        for block, _ in self.blocks:
            features = [x]
            for layer in getattr(parts, f"denseblock{block}").children():
                features.append(layer(features))
            x = torch.cat(features, 1)
            if block < len(self.blocks):
                x, skip = getattr(parts, f"transition{block}")(x)
                skips.append(skip)
        return [*skips, parts.norm5(x)]


class DecoderBlock(nn.Module):
    """Up-sample, append the skip, twice (convolution, norm, ReLU)."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        for index, channels in ((1, inputs), (2, features)):
            conv = nn.Conv2d(channels, features, 3, padding=1, bias=False)
            norm = nn.BatchNorm2d(features)
            setattr(self, f"conv{index}", nn.Sequential(conv, norm, nn.ReLU(inplace=True)))

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        """Features at twice the resolution."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], 1)
        return self.conv2(self.conv1(x))


class TorchUNet(nn.Module):
    """`segmentation_models_pytorch.Unet("densenet121")`, NCHW."""

    def __init__(self, out_channels: int, config: DenseNetConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        *skips, inputs = self.encoder.channels
        self.decoder = nn.Module()
        self.decoder.blocks = nn.ModuleList()
        for features in DECODER_FEATURES:
            inputs += skips.pop() if skips else 0
            self.decoder.blocks.append(DecoderBlock(inputs, features))
            inputs = features
        self.segmentation_head = nn.Sequential(nn.Conv2d(inputs, out_channels, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raw outputs `[B, K, H, W]`."""
        *skips, x = self.encoder(x)
        for block in self.decoder.blocks:
            x = block(x, skips.pop() if skips else None)
        return self.segmentation_head(x)
