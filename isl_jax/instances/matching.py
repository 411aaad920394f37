"""Scores of instance labels against the truth: AP and mAP (5), F1, PQ, AJI.

Everything is derived from one overlap table, at all IoU thresholds at once. Where the conventions
of the field differ:

| case              | here                                                                  |
|-------------------|-----------------------------------------------------------------------|
| both images empty | every score 1 (stardist: 0)                                           |
| one image empty   | every score 0                                                         |
| IoU equal to t    | matched (IoU ≥ t)                                                     |
| IoU of matches    | float64 each, summed in float32 as stardist does (off by < 1e-6)      |
| `ap`              | TP/(TP+FP+FN), the "precision" of equation (5)                        |
| `aji`             | Kumar et al. 2017: each true object takes the prediction of best IoU, |
|                   | which may serve several; unused predictions add to the denominator    |
| `aji_one_to_one`  | as cellpose: one-to-one, over the union of the two foregrounds, where |
|                   | each pixel counts once; mostly the larger of the two                  |
| ignored pixels    | in no object: `known_labels` first                                    |
| several images    | `pool` adds counts up, so that every object weighs alike              |
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isl_jax.instances.overlap import Overlap, overlap

# IoU thresholds 0.50, 0.55, … 0.95 of mAP, equation (5).
THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))


@dataclass(frozen=True)
class Scores:
    """Counts at every threshold, and the scores that follow from them.

    thresholds, tp, fp, fn, iou_sum: arrays [T] (scalars for a single threshold). iou_sum is the
    total IoU of the matched pairs. Each ratio's counts are kept, so that images can be pooled.
    """

    thresholds: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    iou_sum: np.ndarray
    aji_counts: tuple[int, int]
    aji_one_to_one_counts: tuple[int, int]

    @property
    def ap(self) -> np.ndarray:
        """TP/(TP+FP+FN), equation (5), float64 [T]."""
        return self._score(self.tp, self.tp + self.fp + self.fn)

    @property
    def mean_ap(self) -> float:
        """Mean of `ap` over the thresholds: mAP."""
        return float(np.mean(self.ap))

    @property
    def precision(self) -> np.ndarray:
        """TP/(TP+FP), float64 [T]."""
        return self._score(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> np.ndarray:
        """TP/(TP+FN), float64 [T]."""
        return self._score(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> np.ndarray:
        """2TP/(2TP+FP+FN), float64 [T]."""
        return self._score(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def pq(self) -> np.ndarray:
        """Panoptic quality: total IoU of the matches / (TP + FP/2 + FN/2), float64 [T]."""
        return self._score(self.iou_sum, self.tp + self.fp / 2 + self.fn / 2)

    @property
    def mean_matched_iou(self) -> np.ndarray:
        """Mean IoU of the matched pairs (stardist `mean_matched_score`), float64 [T]."""
        return self._score(self.iou_sum, self.tp)

    @property
    def mean_true_iou(self) -> np.ndarray:
        """Mean over true objects, 0 for the unmatched (stardist `mean_true_score`), [T]."""
        return self._score(self.iou_sum, self.tp + self.fn)

    @property
    def aji(self) -> float:
        """Aggregated Jaccard index of Kumar et al. 2017 (IEEE TMI 36:1550, algorithm 1)."""
        return float(self._score(*map(np.asarray, self.aji_counts)))

    @property
    def aji_one_to_one(self) -> float:
        """AJI as cellpose has it: one-to-one intersections / union of the two foregrounds."""
        return float(self._score(*map(np.asarray, self.aji_one_to_one_counts)))

    def _score(self, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        """Divide; where the ratio is undefined, 1 if there is no object at all and 0 otherwise."""
        nothing = (self.tp + self.fp + self.fn) == 0
        nothing = nothing if np.ndim(denominator) == np.ndim(nothing) else np.all(nothing)
        ratio = numerator / np.where(denominator == 0, 1, denominator)
        return np.where(denominator == 0, np.where(nothing, 1.0, 0.0), ratio)[()]


@dataclass(frozen=True)
class Match(Scores):
    """Scores of one image, with the matched objects.

    pairs: [P, 2] (true id, predicted id) matched at the lowest threshold; pair_iou: float64 [P].
    At thresholds from 0.5 up the matches at t are the pairs whose IoU is at least t.
    missed, invented: true and predicted ids without a partner at the lowest threshold.
    """

    pairs: np.ndarray
    pair_iou: np.ndarray
    missed: np.ndarray
    invented: np.ndarray


def known_labels(labels: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Predicted labels [H, W] where the truth is known: what is to be matched with it.

    Objects that lie in `ignored` pixels (bool [H, W]) with more than half of theirs are gone, since
    nobody knows whether they are right; of the others the part that is not ignored stays.
    """
    ids, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    index = index.reshape(labels.shape)
    unknown = np.bincount(index[ignored], minlength=len(ids))
    return np.where((2 * unknown <= sizes)[index] & ~ignored, labels, 0)


def match(
    true: np.ndarray, pred: np.ndarray, thresholds: float | Sequence[float] = THRESHOLDS
) -> Match:
    """Match predicted to true objects one-to-one at each IoU threshold, as many as possible.

    true, pred: integer labels of one shape, any integer dtypes and ids, 0 = background.
    thresholds: [T] or one number, in (0, 1]. Among equally many matches the greatest total IoU is
    taken (as stardist does); from 0.5 up matches are unique but for exact halves. Raises
    ValueError on other label images and on thresholds out of range.
    """
    levels = np.asarray(thresholds, np.float64)
    if levels.size == 0 or not np.all((levels > 0) & (levels <= 1)):
        raise ValueError(f"IoU thresholds are {thresholds}; expected numbers in (0, 1]")
    table = overlap(true, pred)
    matches = [_matches(table, level) for level in levels.flat]
    tp = np.reshape([len(m) for m in matches], levels.shape)[()]
    # Summed in float32, as stardist does: its mean scores and PQ come out to the last digit.
    iou_sum = np.reshape([table.iou[m].astype(np.float32).sum() for m in matches], levels.shape)
    lowest = matches[int(np.argmin(levels))]
    pairs = (table.true_ids[table.true_index[lowest]], table.pred_ids[table.pred_index[lowest]])
    return Match(
        thresholds=levels,
        tp=tp,
        fp=len(table.pred_ids) - tp,
        fn=len(table.true_ids) - tp,
        iou_sum=iou_sum.astype(np.float64)[()],
        aji_counts=_aji_counts(table),
        aji_one_to_one_counts=_aji_one_to_one_counts(table),
        pairs=np.stack(pairs, axis=1),
        pair_iou=table.iou[lowest],
        missed=np.setdiff1d(table.true_ids, pairs[0]),
        invented=np.setdiff1d(table.pred_ids, pairs[1]),
    )


def average_precision(
    true: np.ndarray, pred: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> np.ndarray:
    """TP/(TP+FP+FN) at each IoU threshold, equation (5); its mean is the mAP.

    true, pred: integer labels of one shape. Returns float64 [T] in 0..1; 1 where both images are
    empty, 0 where one of them is. Raises ValueError as `match`.
    """
    return match(true, pred, thresholds).ap


def pool(scores: Sequence[Scores]) -> Scores:
    """Scores of many images taken as one: counts are added up, so that every object weighs alike.

    All must have the same thresholds; raises ValueError otherwise, or if there are none.
    """
    if not scores or any(not np.array_equal(s.thresholds, scores[0].thresholds) for s in scores):
        raise ValueError("pooled scores need at least one image and the same thresholds for all")
    counts = np.array([s.aji_counts for s in scores]).sum(axis=0)
    one_to_one = np.array([s.aji_one_to_one_counts for s in scores]).sum(axis=0)
    return Scores(
        thresholds=scores[0].thresholds,
        tp=np.sum([s.tp for s in scores], axis=0),
        fp=np.sum([s.fp for s in scores], axis=0),
        fn=np.sum([s.fn for s in scores], axis=0),
        iou_sum=np.sum([s.iou_sum for s in scores], axis=0),
        aji_counts=(int(counts[0]), int(counts[1])),
        aji_one_to_one_counts=(int(one_to_one[0]), int(one_to_one[1])),
    )


def _matches(table: Overlap, threshold: float) -> np.ndarray:
    # A whole match outweighs any gain in IoU: first as many as possible, then the best of them.
    fewest = max(1, min(len(table.true_ids), len(table.pred_ids)))
    return table.one_to_one(np.where(table.iou >= threshold, 1 + table.iou / (2 * fewest), 0))


def _aji_counts(table: Overlap) -> tuple[int, int]:
    order = np.lexsort((-table.iou, table.true_index))
    best = order[np.unique(table.true_index[order], return_index=True)[1]]
    lonely = np.ones(len(table.true_ids), bool)
    lonely[table.true_index[best]] = False
    unused = np.ones(len(table.pred_ids), bool)
    unused[table.pred_index[best]] = False
    union = table.union[best].sum() + table.true_area[lonely].sum() + table.pred_area[unused].sum()
    return int(table.area[best].sum()), int(union)


def _aji_one_to_one_counts(table: Overlap) -> tuple[int, int]:
    chosen = table.one_to_one(table.iou)
    foreground = table.true_area.sum() + table.pred_area.sum() - table.area.sum()
    return int(table.area[chosen].sum()), int(foreground)
