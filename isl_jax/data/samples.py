"""Pixels of a crop: the image as the network sees it, the target, and the weight of each pixel."""

from typing import Literal

import numpy as np

from isl_jax.data.crops import Crop
from isl_jax.data.normalisation import standardise
from isl_jax.data.store import Dataset
from isl_jax.data.targets import Scale, distance_map, semantic_mask

Target = Literal["stain", "semantic", "distance_and_semantic"]
NUM_TARGETS = {"stain": 1, "semantic": 1, "distance_and_semantic": 2}


Sample = dict[str, np.ndarray]


def sample_shapes(dataset: Dataset, size: int, target: Target) -> dict[str, tuple[int, int, int]]:
    """Shapes [S, S, …] of the arrays of a sample: image, target and weight."""
    if target not in NUM_TARGETS:
        raise ValueError(f"target {target!r} is none of {', '.join(NUM_TARGETS)}")
    planes = {"image": len(dataset.channels), "target": NUM_TARGETS[target], "weight": 1}
    return {key: (size, size, count) for key, count in planes.items()}


def load_crop(
    dataset: Dataset,
    crop: Crop,
    *,
    target: Target,
    distance_scale: Scale = "normalised",
    distance_unit: float = 255.0,
    out: Sample | None = None,
) -> Sample:
    """Pixels of one crop, float32: image [S, S, C], target [S, S, T], weight [S, S, 1].

    image: standardised by the statistics of the whole field. target, by name: "stain", scaled to
    0..1 (not clipped); "semantic", 0 or 1; "distance_and_semantic", distance map / distance_unit,
    then semantic. weight: 1, and 0 where the crop reaches past the field (filled by reflection).
    The arrays of `out`, contiguous, are written to if given.
    """
    field = dataset.field(crop.field)
    shapes = sample_shapes(dataset, crop.size, target)
    sample = out or {key: np.empty(shape, np.float32) for key, shape in shapes.items()}
    height, width = min(crop.size, field.height - crop.top), min(crop.size, field.width - crop.left)
    window = (slice(crop.top, crop.top + height), slice(crop.left, crop.left + width))
    inside = sample
    if (height, width) != (crop.size, crop.size):
        inside = {k: np.empty((height, width, s[2]), np.float32) for k, s in shapes.items()}
    standardise(
        dataset.inputs(crop.field)[window],
        field.input_mean,
        field.input_std,
        pixels=field.height * field.width,
        out=inside["image"],
    )
    inside["weight"].fill(1)
    if target == "stain":
        stain = dataset.stain_image(crop.field)[window]
        dataset.stain_scale.scale(stain, out=inside["target"][..., 0])
    else:
        inside["target"][..., -1] = semantic_mask(np.asarray(dataset.labels(crop.field)[window]))
    if target == "distance_and_semantic":
        distance = _crop_distance(dataset, crop.field, window, distance_scale)
        np.divide(distance, np.float32(distance_unit), out=inside["target"][..., 0])
    if inside is not sample:
        pad = [(0, crop.size - height), (0, crop.size - width), (0, 0)]
        sample["image"][:] = np.pad(inside["image"], pad, mode="reflect")
        sample["target"][:] = np.pad(inside["target"], pad, mode="reflect")
        sample["weight"][:] = np.pad(inside["weight"], pad)
    return sample


def _crop_distance(
    dataset: Dataset, name: str, window: tuple[slice, slice], scale: Scale
) -> np.ndarray:
    """Distance map of the whole field, computed only where the crop's cells reach: exact."""
    labels = dataset.labels(name)
    ids, boxes = dataset.label_boxes(name)
    inside = boxes[np.isin(ids, np.unique(labels[window]))]
    (top, bottom), (left, right) = ((side.start, side.stop) for side in window)
    if len(inside):
        # One pixel beyond each cell, so that its whole boundary is in view.
        top = max(0, min(top, inside[:, 0].min() - 1))
        bottom = min(labels.shape[0], max(bottom, inside[:, 1].max() + 1))
        left = max(0, min(left, inside[:, 2].min() - 1))
        right = min(labels.shape[1], max(right, inside[:, 3].max() + 1))
    distance = distance_map(np.asarray(labels[top:bottom, left:right]), scale=scale)
    rows, columns = window
    return distance[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
