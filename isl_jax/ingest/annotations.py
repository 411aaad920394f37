"""Hand-drawn masks, as they are published, to instance labels."""

import numpy as np
from scipy import ndimage

# Slips of the pen, smaller than any cell or nucleus that is drawn by hand.
_SMALLEST = 50


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
