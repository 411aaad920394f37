"""A small network with the U-Net's grid, models made of it, and images of blobs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from isl_jax.inference import model as inference
from isl_jax.inference.info import ModelInfo, NetworkInfo, PostProcessing
from isl_jax.inference.model import Model
from isl_jax.task import Kind, Task

CHANNELS = ("bf1", "bf2", "phase")


class OnAGrid(nn.Module):
    """Stands in for the U-Net: its grid of 32 pixels, zeros beyond the edge, sees 64 pixels far."""

    out_channels: int

    @nn.compact
    def __call__(self, x, train=False):
        coarse = nn.avg_pool(nn.Conv(2, (3, 3))(x), (32, 32), (32, 32))
        coarse = nn.Conv(2, (3, 3))(coarse)
        coarse = jnp.repeat(jnp.repeat(coarse, 32, 1), 32, 2)
        fine = nn.relu(nn.Conv(4, (3, 3))(x))
        return nn.Conv(self.out_channels, (3, 3))(jnp.concatenate([fine, coarse], -1))


@pytest.fixture
def make_model(monkeypatch):
    def build_network(*, out_channels, **_):
        return OnAGrid(out_channels)

    monkeypatch.setattr(inference, "build_network", build_network)

    def make(kind: Kind, *, channels=CHANNELS, **changes) -> Model:
        task = Task(kind)
        outputs = task.num_outputs
        zeros = np.zeros((1, 32, 32, len(channels)), np.float32)
        variables = OnAGrid(outputs).init(jax.random.key(1), zeros)
        values = {
            "study": "cell" if outputs == 2 else "nucleus",
            "stage": "pretrain" if task.is_stain else "segment",
            "network": NetworkInfo("tiny", "none", outputs, len(channels)),
            "task": task,
            "channels": channels,
            "postprocessing": PostProcessing(h=5.0 if task.has_distance else None),
        }
        return Model(ModelInfo(**values | changes), jax.tree.map(np.asarray, variables))

    return make


@pytest.fixture
def make_planes():
    def make(height, width, *, channels=3, seed=0):
        rng = np.random.default_rng(seed)
        smooth = ndimage.gaussian_filter(rng.random((channels, height, width)), (0, 4, 4))
        return (smooth * 60_000).astype(np.uint16)

    return make
