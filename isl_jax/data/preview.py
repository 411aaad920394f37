"""One picture of a prepared data set: do the images, the stain and the masks fit together?"""

from pathlib import Path

import numpy as np
from imagecodecs import jpeg_encode
from skimage.segmentation import find_boundaries

from isl_jax.data.binning import bin_average
from isl_jax.data.splits import SPLITS
from isl_jax.data.store import Dataset, Field

PREVIEW = "preview.jpg"

_WIDTH = 300  # pixels of one panel, at most
_GAP = 4
_OUTLINE = (255, 190, 0)


def write_preview(dataset: Dataset, path: Path) -> None:
    """Write a JPEG with a row for the first field of each split: input, stain, outlines of labels.

    The first input channel is shown, alone and under the outlines; what a field does not have is
    left black. Fields with labels are preferred.
    """
    rows = []
    for split in SPLITS:
        fields = dataset.select(split, labels=True) or dataset.select(split)
        if fields:
            rows.append(panels(dataset, fields[0]))
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, _GAP), (0, width - row.shape[1]), (0, 0))) for row in rows]
    path.write_bytes(jpeg_encode(np.ascontiguousarray(np.vstack(rows)[:-_GAP]), level=80))


def panels(dataset: Dataset, field: Field, labels: np.ndarray | None = None) -> np.ndarray:
    """A field side by side: input, stain, and the input outlined by `labels` [H, W].

    Without them, by its own. uint8 RGB [h, 3 w + gaps, 3].
    """
    factor = -(-field.width // _WIDTH)
    image = _grey(dataset.inputs(field.name)[..., 0], factor)
    black = np.zeros_like(image)
    stain = _grey(dataset.stain_image(field.name), factor) if field.has_stain else black
    if labels is None and field.has_labels:
        labels = dataset.labels(field.name)
    outlined = black
    if labels is not None:
        # Subsampled, not averaged: ids are no numbers.
        height, width = image.shape[:2]
        small = np.asarray(labels[::factor, ::factor])[:height, :width]
        outlined = image.copy()
        outlined[find_boundaries(small, mode="inner")] = _OUTLINE
    gap = np.zeros((image.shape[0], _GAP, 3), np.uint8)
    return np.hstack([image, gap, stain, gap, outlined])


def _grey(plane: np.ndarray, factor: int) -> np.ndarray:
    """Plane [H, W] → uint8 RGB [H//f, W//f, 3], stretched between percentiles 0.5 and 99.5."""
    small = bin_average(np.asarray(plane), factor).astype(np.float32)
    low, high = np.percentile(small, (0.5, 99.5))
    scaled = np.clip((small - low) / max(high - low, 1e-6), 0, 1) * 255
    return np.repeat(scaled.astype(np.uint8)[..., None], 3, axis=2)
