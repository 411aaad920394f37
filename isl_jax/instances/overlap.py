"""Which objects of two label images overlap, and the one-to-one assignment between them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching


@dataclass(frozen=True)
class Overlap:
    """Every overlapping pair of a true and a predicted object, as indices into their id lists.

    true_ids [N], pred_ids [M]: ids in ascending order, background left out. true_area [N],
    pred_area [M]: pixels. true_index, pred_index, area [K]: the pairs and their common pixels.
    """

    true_ids: np.ndarray
    pred_ids: np.ndarray
    true_area: np.ndarray
    pred_area: np.ndarray
    true_index: np.ndarray
    pred_index: np.ndarray
    area: np.ndarray

    @cached_property
    def union(self) -> np.ndarray:
        """Pixels in either object of each pair, int64 [K]."""
        return self.true_area[self.true_index] + self.pred_area[self.pred_index] - self.area

    @cached_property
    def iou(self) -> np.ndarray:
        """Intersection over union of each pair, float64 [K] in (0, 1]."""
        return self.area / self.union

    def one_to_one(self, weight: np.ndarray) -> np.ndarray:
        """Indices of the pairs of the one-to-one assignment with the greatest total weight.

        weight: float [K]; pairs of weight 0 or less are never chosen.
        """
        candidates = np.flatnonzero(weight > 0)
        rows, cols = self.true_index[candidates], self.pred_index[candidates]
        if _distinct(rows) and _distinct(cols):
            return candidates
        # Each object may also stay alone: a column of its own that costs as much as weight 0.
        n, m = len(self.true_ids), len(self.pred_ids)
        ceiling = 2 * weight.max()
        cost = np.concatenate([ceiling - weight[candidates], np.full(n, ceiling)])
        row = np.concatenate([rows, np.arange(n)])
        col = np.concatenate([cols, m + np.arange(n)])
        chosen = np.full(n, -1)
        row, col = min_weight_full_bipartite_matching(csr_array((cost, (row, col)), (n, m + n)))
        chosen[row] = col
        return candidates[chosen[rows] == cols]


def overlap(true: np.ndarray, pred: np.ndarray) -> Overlap:
    """Overlap table of two label images, from one pass over the pixels.

    true, pred: integers [...] of one shape, any integer dtypes, 0 = background; ids need not be
    consecutive and may be as large as the dtype holds. Raises ValueError on other input.
    """
    true, pred = _labels("true", true), _labels("predicted", pred)
    if true.shape != pred.shape:
        raise ValueError(
            f"true labels are {list(true.shape)}, predicted {list(pred.shape)}; expected one shape"
        )
    # Label images are piecewise constant: a table of runs is ~30 times shorter than one of pixels.
    true, pred = true.ravel(), pred.ravel()
    changes = np.flatnonzero((true[1:] != true[:-1]) | (pred[1:] != pred[:-1])) + 1
    starts = np.concatenate([[0], changes]) if true.size else changes
    lengths = np.diff(starts, append=true.size)
    true_ids, true_index = np.unique(true[starts], return_inverse=True)
    pred_ids, pred_index = np.unique(pred[starts], return_inverse=True)
    true_area = _total(true_index, lengths, len(true_ids))
    pred_area = _total(pred_index, lengths, len(pred_ids))
    pairs, run_pair = np.unique(true_index * len(pred_ids) + pred_index, return_inverse=True)
    area = _total(run_pair, lengths, len(pairs))
    true_index, pred_index = np.divmod(pairs, max(len(pred_ids), 1))
    # Ids are sorted, so the background, where there is any, is the first of them.
    first_true = int(len(true_ids) > 0 and true_ids[0] == 0)
    first_pred = int(len(pred_ids) > 0 and pred_ids[0] == 0)
    objects = (true_index >= first_true) & (pred_index >= first_pred)
    return Overlap(
        true_ids=true_ids[first_true:],
        pred_ids=pred_ids[first_pred:],
        true_area=true_area[first_true:],
        pred_area=pred_area[first_pred:],
        true_index=true_index[objects] - first_true,
        pred_index=pred_index[objects] - first_pred,
        area=area[objects],
    )


def _labels(name: str, labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.dtype == bool:
        labels = labels.view(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name} labels are {labels.dtype}; expected an integer dtype")
    if labels.size and labels.min() < 0:
        raise ValueError(f"{name} labels contain {labels.min()}; expected ids ≥ 0, 0 = background")
    return labels


def _total(index: np.ndarray, lengths: np.ndarray, count: int) -> np.ndarray:
    # bincount sums in float64, which is exact below 2**53 pixels.
    return np.bincount(index, lengths, minlength=count).astype(np.int64)


def _distinct(index: np.ndarray) -> bool:
    return len(index) == 0 or np.bincount(index).max() == 1
