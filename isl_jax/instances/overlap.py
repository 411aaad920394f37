"""Which objects of two label images overlap, and the one-to-one assignment between them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from isl_jax.compiled import compiled

# Up to these, tables with an entry for every id or pair are faster than sorting.
_LARGEST_ID = 1 << 16
_LARGEST_TABLE = 1 << 22


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
        # int32, the only indices that the matching of scipy 1.14 takes.
        row = np.concatenate([rows, np.arange(n)]).astype(np.int32)
        col = np.concatenate([cols, m + np.arange(n)]).astype(np.int32)
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
    # Label images are piecewise constant: there are ~30 times fewer runs than pixels.
    true_runs, pred_runs, lengths = _runs(true.ravel(), pred.ravel())
    true_ids, true_index = _numbered("true", true_runs)
    pred_ids, pred_index = _numbered("predicted", pred_runs)
    pair = true_index * len(pred_ids) + pred_index
    pairs, area = _totals(pair, lengths)
    true_index, pred_index = np.divmod(pairs, max(len(pred_ids), 1))
    true_area = np.bincount(true_index, area, len(true_ids)).astype(np.int64)
    pred_area = np.bincount(pred_index, area, len(pred_ids)).astype(np.int64)
    # Only now, in short lists, leave out the background and ids that do not occur.
    true_kept, pred_kept = (true_area > 0) & (true_ids != 0), (pred_area > 0) & (pred_ids != 0)
    objects = true_kept[true_index] & pred_kept[pred_index]
    return Overlap(
        true_ids=true_ids[true_kept],
        pred_ids=pred_ids[pred_kept],
        true_area=true_area[true_kept],
        pred_area=pred_area[pred_kept],
        true_index=(np.cumsum(true_kept) - 1)[true_index[objects]],
        pred_index=(np.cumsum(pred_kept) - 1)[pred_index[objects]],
        area=area[objects],
    )


def _labels(name: str, labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.dtype == bool:
        labels = labels.view(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name} labels are {labels.dtype}; expected an integer dtype")
    return labels


@compiled()
def _runs(true, pred):
    """Runs of pixels that have the same two labels: (true labels, predicted labels, lengths)."""
    if true.size == 0:
        return true, pred, np.empty(0, np.int64)
    count = 1
    for i in range(1, true.size):
        count += (true[i] != true[i - 1]) | (pred[i] != pred[i - 1])
    true_runs, pred_runs = np.empty(count, true.dtype), np.empty(count, pred.dtype)
    lengths = np.empty(count, np.int64)
    run = start = 0
    for end in range(1, true.size + 1):
        if end == true.size or true[end] != true[end - 1] or pred[end] != pred[end - 1]:
            true_runs[run], pred_runs[run] = true[start], pred[start]
            lengths[run] = end - start
            run, start = run + 1, end
    return true_runs, pred_runs, lengths


def _numbered(name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids in ascending order and each value's place among them; small ids number themselves."""
    if values.size and values.min() < 0:
        raise ValueError(f"{name} labels contain {values.min()}; expected ids ≥ 0, 0 = background")
    largest = int(values.max(initial=0))
    if largest < _LARGEST_ID:
        return np.arange(largest + 1).astype(values.dtype), values.astype(np.int64)
    return np.unique(values, return_inverse=True)


def _totals(pair: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct pairs in ascending order and the total length of each."""
    # bincount sums in float64, which is exact below 2**53 pixels.
    if pair.max(initial=0) < _LARGEST_TABLE:
        table = np.bincount(pair, lengths)
        pairs = np.flatnonzero(table)
        return pairs, table[pairs].astype(np.int64)
    pairs, index = np.unique(pair, return_inverse=True)
    return pairs, np.bincount(index, lengths).astype(np.int64)


def _distinct(index: np.ndarray) -> bool:
    return len(index) == 0 or np.bincount(index).max() == 1
