"""Instance labels of a field, whatever they were drawn as: ids, or masks that have no ids."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from isl_jax.ingest.discovery import Part, RawField
from isl_jax.ingest.images import ImageInfo
from isl_jax.ingest.layouts import label_channels
from isl_jax.ingest.readers import ImageFiles

# Slips of the pen, smaller than any cell or nucleus that is drawn by hand.
_SMALLEST = 50


def check_labels(headers: Sequence[tuple[Part, ImageInfo]]) -> None:
    """ValueError in one line unless a channel of labels is one plane of integers."""
    path, dtype = headers[0][0].path, headers[0][1].dtype
    if dtype.kind not in "iu":
        raise ValueError(f"{path}: labels are {dtype}, expected integers; save as uint16")
    planes = sum(info.planes for _, info in headers)
    if planes > 1:
        raise ValueError(f"{path}: labels have {planes} planes, expected one; save a 2-D mask")


def read_labels(field: RawField, text: str, files: ImageFiles | None = None) -> np.ndarray:
    """Instance ids int32 [H, W], read or made from what `text` (a layout's label) names."""
    part, *edge = [field.files[channel][0] for channel in label_channels(text)]
    labels = part.read(files=files)[0]
    if edge:
        return instances_from_interior(labels, edge[0].read(files=files)[0])
    if text.endswith(":components"):
        return instances_from_mask(labels)
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        raise ValueError(
            f"{part.path}: labels go from {labels.min()} to {labels.max()}, expected 0 for "
            f"background up to {np.iinfo(np.int32).max}; number the cells from 1"
        )
    return labels.astype(np.int32)


def instances_from_mask(mask: np.ndarray) -> np.ndarray:
    """Connected components of a mask [H, W], foreground above 0: int32 [H, W], 0 = background.

    Pixels that only touch by a corner are not connected.
    """
    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask > 0, output=labels)
    return labels


def instances_from_interior(
    interior: np.ndarray, edge: np.ndarray, *, reach: float = 3.0, smallest: int = _SMALLEST
) -> np.ndarray:
    """Instances drawn as two masks, of cell interiors and of the edges between and around them.

    Each connected component of the interior with at least `smallest` pixels is a cell; the edge
    pixels within `reach` pixels of a cell (Euclidean) go to the nearest one. interior, edge:
    [H, W], foreground above 0. Returns int32 [H, W], 0 = background, ids 1…n.
    """
    components = instances_from_mask(interior)
    areas = np.bincount(components.ravel())
    areas[0] = 0
    ids = np.cumsum(areas >= smallest) * (areas >= smallest)
    cells = ids.astype(np.int32)[components]
    if not cells.any():
        return cells
    distance = np.empty(cells.shape)
    nearest = np.empty((2, *cells.shape), np.int32)
    ndimage.distance_transform_edt(
        cells == 0, return_indices=True, distances=distance, indices=nearest
    )
    grown = np.where((distance <= reach) & (edge > 0), cells[tuple(nearest)], 0)
    return np.where(cells > 0, cells, grown)
