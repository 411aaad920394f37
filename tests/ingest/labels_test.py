import numpy as np
import pytest
from skimage.measure import label
from skimage.segmentation import expand_labels

from isl_jax.ingest.labels import instances_from_interior, instances_from_mask


def same_objects(labels, expected):
    """Whether both draw the same objects, whatever their ids."""
    pairs = np.unique(np.stack([labels.ravel(), expected.ravel()]), axis=1)
    counts = len(np.unique(labels)), len(np.unique(expected)), pairs.shape[1]
    return len(set(counts)) == 1 and np.array_equal(labels > 0, expected > 0)


def drawn(shape=(120, 150), *, seed=0):
    """Interiors (discs, some touching by a corner) and edges, as masks of 0 and 255."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: shape[0], : shape[1]]
    interior = np.zeros(shape, bool)
    for _ in range(12):
        centre, radius = rng.uniform(0, shape), rng.uniform(5, 9)
        interior |= (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
    edge = (expand_labels(interior.astype(int), 5) > 0) & ~interior
    return interior * np.uint8(255), edge * np.uint16(65535)


def test_components_touch_by_sides_and_not_by_corners():
    mask = np.zeros((6, 6), np.uint8)
    mask[0:2, 0:2] = mask[2:4, 2:4] = 255
    mask[5, 5] = 1
    labels = instances_from_mask(mask)
    assert labels.dtype == np.int32 and labels.max() == 3
    assert same_objects(labels, label(mask > 0, connectivity=1))


@pytest.mark.parametrize("seed", range(4))
def test_cells_grow_into_the_edge_by_no_more_than_their_reach(seed):
    interior, edge = drawn(seed=seed)
    labels = instances_from_interior(interior, edge)
    cells = label(interior > 0, connectivity=1)
    grown = expand_labels(cells, 3)
    assert same_objects(labels, np.where((edge > 0) | (interior > 0), grown, 0))
    assert same_objects(np.where(interior > 0, labels, 0), cells)
    wider = instances_from_interior(interior, edge, reach=5)
    assert (wider > 0).sum() > (labels > 0).sum() > (interior > 0).sum()


def test_edge_pixels_go_to_the_nearest_cell_and_the_background_to_none():
    interior, edge = np.zeros((9, 30), bool), np.zeros((9, 30), bool)
    interior[:, :10], interior[:, 14:22] = True, True
    edge[:, 10:14] = True
    labels = instances_from_interior(interior, edge)
    assert labels[4].tolist() == [1] * 12 + [2] * 10 + [0] * 8


def test_slips_of_the_pen_are_no_cells():
    interior = np.zeros((40, 40), np.uint8)
    interior[:7, :7] = 255  # 49 pixels
    interior[20:30, 20:25] = 255  # 50 pixels
    labels = instances_from_interior(interior, np.zeros_like(interior))
    assert labels.max() == 1 and (labels > 0).sum() == 50
    assert instances_from_interior(interior * 0, interior).max() == 0
    assert instances_from_interior(interior, interior, smallest=1).max() == 2
