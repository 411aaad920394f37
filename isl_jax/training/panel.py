"""Pictures of a few validation crops: what goes in, what should come out, what does."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from isl_jax.training.objectives import Objective

# Crops of the first validation batch that are shown.
NUM_CROPS = 4


def panel(batch: Mapping[str, np.ndarray], outputs: np.ndarray, objective: Objective) -> np.ndarray:
    """Rows of pictures, uint8 `[N, H, (1 + 2 K) · W, 1]`: first channel, targets, outputs.

    `outputs` `[B, H, W, K]` are the network's own. The input is scaled by its range, the rest is
    shown from 0 to 1; semantic outputs are shown as probabilities.
    """
    image = np.asarray(batch["image"][:NUM_CROPS, ..., 0], np.float32)
    low, high = image.min((1, 2), keepdims=True), image.max((1, 2), keepdims=True)
    tiles = [(image - low) / np.maximum(high - low, 1e-6)]
    shown = np.array(outputs[: len(image)], np.float32)
    if objective.target != "stain":
        shown[..., -1] = np.asarray(objective.probability(jnp.asarray(shown[..., -1])))
    for maps in (np.asarray(batch["target"][:NUM_CROPS], np.float32), shown):
        tiles += list(np.moveaxis(maps, -1, 0))
    row = np.clip(np.nan_to_num(np.concatenate(tiles, axis=2)), 0, 1)
    return (row * 255).round().astype(np.uint8)[..., None]
