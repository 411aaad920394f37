"""The network that the tests train."""

import flax.linen as nn
import pytest


class SmallNetwork(nn.Module):
    out_channels: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Conv(self.out_channels, (1, 1))(x)


@pytest.fixture
def network():
    return SmallNetwork()
