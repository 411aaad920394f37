"""How a network's maps are best read, found on annotated images, since they are not true maps."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from skimage.measure import label as connected_components

from isl_jax.instances.matching import average_precision, known_labels
from isl_jax.instances.watershed import DEFAULT_H, label_batch
from isl_jax.metrics import iou

# Contrasts span both scales of the distance map: a pixel's worth up to most of a normalised map's
# 255. One in three is enough to compare the smoothings.
CONTRASTS = (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 100, 120, 150, 180)
SIGMAS = (0.0, 1.0, 2.0, 3.0)
THRESHOLDS = (0.5, 0.4, 0.6, 0.3, 0.7)
_COARSE = 3
# Objects smaller than these shares of all but the smallest 5 % of the annotated ones are dropped.
_SMALLEST = 0.05
_SIZE_SHARES = (0.25, 0.5)


@dataclasses.dataclass(frozen=True)
class Reading:
    """From maps to labels: options of `label_instances`, and the threshold of the mask."""

    h: float = DEFAULT_H
    sigma: float = 0.0
    threshold: float = 0.5
    min_size: int = 0


def calibrate_instances(
    distances: Sequence[np.ndarray],
    probabilities: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    *,
    ignored: Sequence[np.ndarray | None] | None = None,
    given: Mapping[str, Any] | None = None,
    contrasts: Sequence[float] = CONTRASTS,
) -> Reading:
    """The reading of the highest mAP, averaged over annotated images.

    distances, probabilities: predicted maps float32; truths: integer labels; one [H, W] each an
    image. `ignored`: bool [H, W] each, pixels that do not count, or None. `given` fixes values by
    name. First the smoothing, over a coarse grid of contrasts, then
    the contrast, the threshold, the smallest size: each step keeps what it started with unless
    another value is better, so that the result is never worse on these images than the default
    reading. Of equally good contrasts the one in the middle of the longest run is taken, farthest
    from where the score falls. Raises ValueError without images.
    """
    given = given or {}
    start = _start(given, probabilities, distances, truths)
    scored: dict[Reading, float] = {}

    def score(reading: Reading) -> float:
        if reading not in scored:
            masks = (probability > reading.threshold for probability in probabilities)
            options = dataclasses.asdict(reading)
            del options["threshold"]
            labels = label_batch(distances, masks, **options)
            if ignored is not None:
                labels = [
                    p if out is None else known_labels(p, out)
                    for p, out in zip(labels, ignored, strict=True)
                ]
            scored[reading] = _mean(
                average_precision(t, p).mean() for t, p in zip(truths, labels, strict=True)
            )
        return scored[reading]

    values = [start.h] if "h" in given else sorted({start.h, *map(float, contrasts)})
    sigmas = [start.sigma] if "sigma" in given else SIGMAS
    best = start
    for threshold in [start.threshold] if "threshold" in given else THRESHOLDS:
        first = dataclasses.replace(start, threshold=threshold)
        coarse = [
            dataclasses.replace(first, sigma=s, h=h) for s in sigmas for h in values[::_COARSE]
        ]
        best = _best(score, best, [first, *coarse])
        if score(best) > 0:
            break  # else nothing is found at that threshold, whatever the contrast
    contrasts_there = [dataclasses.replace(best, h=h) for h in values]
    best = contrasts_there[_middle_of_best([score(reading) for reading in contrasts_there])]
    if "threshold" not in given:
        best = _best(score, best, (dataclasses.replace(best, threshold=t) for t in THRESHOLDS))
    if "min_size" not in given:
        sizes = _sizes(truths)
        best = _best(score, best, (dataclasses.replace(best, min_size=size) for size in sizes))
    return best


def calibrate_semantic(
    probabilities: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    *,
    ignored: Sequence[np.ndarray | None] | None = None,
    given: Mapping[str, Any] | None = None,
) -> Reading:
    """The threshold, and the smallest component, of the highest IoU averaged over annotated images.

    As `calibrate_instances`, for nuclei without a distance map.
    """
    given = given or {}
    start = _start(given, probabilities, truths)

    def score(reading: Reading) -> float:
        masks = [_without_small(p > reading.threshold, reading.min_size) for p in probabilities]
        for mask, out in zip(masks, ignored or (), strict=ignored is not None):
            if out is not None:
                mask[out] = False
        return _mean(iou(mask, truth > 0) for mask, truth in zip(masks, truths, strict=True))

    best = start
    if "threshold" not in given:
        best = _best(score, best, (dataclasses.replace(best, threshold=t) for t in THRESHOLDS))
    if "min_size" not in given:
        sizes = _sizes(truths)
        best = _best(score, best, (dataclasses.replace(best, min_size=size) for size in sizes))
    return best


def _start(given: Mapping[str, Any], *images: Sequence[np.ndarray]) -> Reading:
    counts = [len(of_kind) for of_kind in images]
    if not counts[0] or len(set(counts)) > 1:
        raise ValueError(
            f"calibration got {' and '.join(map(str, counts))} maps and truths; expected the same "
            "number of each, at least one"
        )
    return dataclasses.replace(Reading(), **given)


def _best(score: Callable[[Reading], float], best: Reading, others: Iterable[Reading]) -> Reading:
    """The first of the highest score."""
    for other in others:
        best = other if score(other) > score(best) else best
    return best


def _middle_of_best(scores: Sequence[float]) -> int:
    best = np.flatnonzero(np.array(scores) == max(scores))
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    longest = max(runs, key=len)
    return int(longest[len(longest) // 2])


def _sizes(truths: Sequence[np.ndarray]) -> list[int]:
    """Smallest sizes to try, in pixels."""
    counts = [np.unique(truth[truth > 0], return_counts=True)[1] for truth in truths]
    sizes = np.concatenate(counts)
    if not sizes.size:
        return []
    smallest = float(np.quantile(sizes, _SMALLEST))
    return [round(share * smallest) for share in _SIZE_SHARES]


def _without_small(mask: np.ndarray, min_size: int) -> np.ndarray:
    if min_size <= 1:
        return mask
    labels = np.asarray(connected_components(mask, connectivity=2))
    kept = np.bincount(labels.ravel()) >= min_size
    kept[0] = False
    return kept[labels]


def _mean(scores: Iterable[float]) -> float:
    return float(np.mean(list(scores)))
