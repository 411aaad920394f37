"""Training targets of the segmentation tasks, made from instance labels (section 2, "Data")."""

from typing import Literal

import numpy as np

from isl_jax.data.distance import scale_peaks, squared_distance

Scale = Literal["normalised", "pixels"]

# Each cell's maximum in a "normalised" distance map.
NORMALISED_PEAK = 255.0


def semantic_mask(labels: np.ndarray) -> np.ndarray:
    """Foreground of instance labels.

    labels: integers [H, W], 0 = background. Returns float32 [H, W], 1 inside cells and 0 outside.
    """
    return (_checked(labels) > 0).astype(np.float32)


def distance_map(labels: np.ndarray, scale: Scale = "normalised") -> np.ndarray:
    """Euclidean distance from each cell pixel to the nearest pixel that is not of its own cell.

    Touching cells bound each other; the image border bounds nothing (the cell goes on behind it),
    except for a label that fills the whole image and has no other boundary.

    labels: integers [H, W] of any integer dtype, 0 = background. Returns float32 [H, W], 0 outside
    cells; `scale="pixels"`: in pixels, at least 1 inside cells; `"normalised"`: each label's
    maximum is 255. Raises ValueError on labels that are not a 2-D non-negative integer array and
    on an unknown scale.
    """
    if scale not in ("normalised", "pixels"):
        raise ValueError(f"distance map scale is {scale!r}; expected 'normalised' or 'pixels'")
    labels = _compact(_checked(labels))
    if labels.size == 0:
        return np.zeros(labels.shape, np.float32)
    if np.all(labels == labels[0, 0]):
        squared = squared_distance(np.pad(labels, 1))[1:-1, 1:-1]
    else:
        squared = squared_distance(labels)
    distance = np.sqrt(squared, dtype=np.float32)
    if scale == "normalised":
        scale_peaks(distance, labels, np.float32(NORMALISED_PEAK))
    return distance


def _compact(labels: np.ndarray) -> np.ndarray:
    """The same objects as int32 with ids no greater than the number of pixels."""
    if labels.size and labels.max() > labels.size:
        ids, labels = np.unique(labels, return_inverse=True)
        labels += ids[0] > 0  # 0 stays the background, also where there is none
    return np.ascontiguousarray(labels, dtype=np.int32)


def _checked(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.dtype == bool:
        labels = labels.view(np.uint8)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"instance labels are {labels.dtype} {list(labels.shape)}; expected integers [H, W]"
        )
    if labels.size and labels.min() < 0:
        raise ValueError(
            f"instance labels contain {labels.min()}; expected ids ≥ 0, 0 = background"
        )
    return labels
