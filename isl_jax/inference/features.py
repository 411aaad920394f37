"""What a trained encoder sees in the places of an image: its deepest features, pooled."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from isl_jax.inference.model import Model
from isl_jax.models.architecture import STRIDE, encoder_config
from isl_jax.models.densenet import DenseNet

# Windows of an image that the encoder looks at: their side in pixels, and how many a side.
_WINDOW, _MOST = 256, 4
# Features are averaged over squares of so many strides.
_POOLED = 4


class EncoderFeatures:
    """The encoder of a trained model, as a function from images to features of their places."""

    def __init__(self, model: Model) -> None:
        self.normalisation = model.info.normalisation
        self.channels = model.info.channels
        network = DenseNet(encoder_config(model.info.network.encoder))
        variables = {
            name: tree.get("unet", tree)["encoder"] for name, tree in model.variables.items()
        }
        self._variables = jax.device_put(variables)

        def deepest(variables: Any, images: jax.Array) -> jax.Array:
            features = network.apply(variables, images, train=False)
            return jnp.asarray(features[-1], jnp.float32)  # pyright: ignore[reportIndexIssue]

        self._deepest = jax.jit(deepest)

    def places(self, image: np.ndarray) -> np.ndarray:
        """Features [n, F] float64 of places of an image [H, W, C] that is normalised.

        Windows lie evenly over it, at most 4 × 4 of 256² pixels; each gives squares of 128².
        Raises ValueError for an image of fewer than 32 pixels a side.
        """
        side = min(_WINDOW, *(size // STRIDE * STRIDE for size in image.shape[:2]))
        if side < STRIDE:
            raise ValueError(
                f"an image of {image.shape[0]} × {image.shape[1]} pixels is too small for the "
                f"encoder, which needs {STRIDE} a side"
            )
        starts = [
            np.linspace(0, size - side, min(_MOST, max(1, size // side))).astype(int)
            for size in image.shape[:2]
        ]
        windows = [image[y : y + side, x : x + side] for y in starts[0] for x in starts[1]]
        features = np.asarray(self._deepest(self._variables, np.stack(windows)), np.float64)
        count, rows, _, width = features.shape
        step = min(_POOLED, rows)
        cut = rows // step * step
        blocks = features[:, :cut, :cut].reshape(count, cut // step, step, cut // step, step, width)
        return blocks.mean(axis=(2, 4)).reshape(-1, width)
