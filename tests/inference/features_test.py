"""Features of an encoder, against the same network run on a whole image."""

import jax
import numpy as np
import pytest

from isl_jax.inference.features import EncoderFeatures
from isl_jax.inference.info import ModelInfo, NetworkInfo
from isl_jax.inference.model import Model
from isl_jax.models.architecture import encoder_config
from isl_jax.models.densenet import DenseNet
from isl_jax.models.heads import build_network
from isl_jax.models.variables import init_variables
from isl_jax.task import Kind, Task


def model_with(head: str) -> Model:
    outputs = 1 if head == "none" else 2
    network = build_network(out_channels=outputs, head=head, encoder="tiny")
    task = Task(Kind.STAIN if head == "none" else Kind.INSTANCES)
    info = ModelInfo(
        study="cell",
        stage="pretrain" if head == "none" else "segment",
        network=NetworkInfo(encoder="tiny", head=head, out_channels=outputs, in_channels=2),
        task=task,
        channels=("a", "b"),
    )
    return Model(info, init_variables(network, in_channels=2, seed=0))


@pytest.mark.parametrize("head", ["none", "paper"])
def test_features_are_means_of_the_deepest_ones(head):
    model = model_with(head)
    image = np.random.default_rng(0).normal(size=(256, 256, 2)).astype(np.float32)
    found = EncoderFeatures(model).places(image)
    tree = {name: tree.get("unet", tree)["encoder"] for name, tree in model.variables.items()}
    whole = DenseNet(encoder_config("tiny")).apply(tree, image[None], train=False)[-1]
    whole = np.asarray(jax.device_get(whole))[0]
    expected = whole.reshape(2, 4, 2, 4, -1).mean(axis=(1, 3)).reshape(4, -1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "count"), [((70, 40), 2), ((300, 600), 8), ((2000, 300), 16)])
def test_windows_cover_images_of_any_size(size, count):
    image = np.zeros((*size, 2), np.float32)
    assert len(EncoderFeatures(model_with("none")).places(image)) == count


def test_a_tiny_image_is_refused():
    with pytest.raises(ValueError, match="too small"):
        EncoderFeatures(model_with("none")).places(np.zeros((20, 100, 2), np.float32))
