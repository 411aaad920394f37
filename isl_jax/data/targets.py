"""Targets of the segmentation tasks, made from instance labels (section 2, "Data"), compiled."""

import numpy as np

from isl_jax.compiled import compiled
from isl_jax.data.peaks import keep_single_peaks
from isl_jax.task import (
    DISTANCE_PEAKS,
    DISTANCE_SCALES,
    NORMALISED_PEAK,
    DistancePeaks,
    DistanceScale,
)

# Stands for "no boundary in sight"; twice its square still fits into int32.
_FAR = 32767


def semantic_mask(labels: np.ndarray) -> np.ndarray:
    """Foreground of instance labels.

    labels: integers [H, W], 0 = background. Returns float32 [H, W], 1 inside cells and 0 outside.
    """
    return (_checked(labels) > 0).astype(np.float32)


def distance_map(
    labels: np.ndarray, scale: DistanceScale = "normalised", peaks: DistancePeaks = "single"
) -> np.ndarray:
    """Euclidean distance from each cell pixel to the nearest pixel that is not of its own cell.

    Touching cells bound each other; the image border bounds nothing (the cell goes on behind it),
    except for a label that fills the whole image and has no other boundary.

    labels: integers [H, W] of any integer dtype, 0 = background. Returns float32 [H, W], 0 outside
    cells; `scale="pixels"`: in pixels, at least 1 inside cells; `"normalised"`: each label's
    maximum is NORMALISED_PEAK. `peaks="single"`: where a label has several maxima, all but the
    highest (of each connected piece) are lowered to the pass that leads to it, so that every piece
    reads as one cell at any marker contrast (`peaks.keep_single_peaks`); `"all"`: the distance as
    it is. Raises ValueError on labels that are not a 2-D non-negative integer array and on an
    unknown scale or rule.
    """
    for what, word, words in (
        ("scale is", scale, DISTANCE_SCALES), ("peaks are", peaks, DISTANCE_PEAKS)
    ):  # fmt: skip
        if word not in words:
            raise ValueError(
                f"distance map {what} {word!r}; expected {' or '.join(map(repr, words))}"
            )
    labels = _compact(_checked(labels))
    if labels.size == 0:
        return np.zeros(labels.shape, np.float32)
    if np.all(labels == labels[0, 0]):
        squared = np.ascontiguousarray(_squared_distance(np.pad(labels, 1))[1:-1, 1:-1])
    else:
        squared = _squared_distance(labels)
    if peaks == "single":
        keep_single_peaks(squared, labels)
    if scale == "normalised":
        return _scaled_roots(squared, labels, np.float32(NORMALISED_PEAK))
    return np.sqrt(squared, dtype=np.float32)


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


@compiled()
def _squared_distance(labels):
    """Squared distance from each pixel to the nearest one of another label, int32 [H, W].

    labels: int32 [H, W]; 0 is background and gets 0. The image border bounds nothing: without any
    other label the result is 32767². First along columns, then along rows, in loops over whole rows
    that the compiler turns into vector instructions; time grows with the largest cell's radius.
    """
    height, width = labels.shape
    squared = np.empty((height, width), np.int32)
    distance = np.full(width, _FAR, np.int32)
    for y in range(height):
        for x in range(width):
            other = y > 0 and labels[y, x] != labels[max(y - 1, 0), x]
            distance[x] = 1 if other else min(distance[x] + 1, _FAR)
            squared[y, x] = distance[x]
    distance[:] = _FAR
    for y in range(height - 1, -1, -1):
        for x in range(width):
            other = y < height - 1 and labels[y, x] != labels[min(y + 1, height - 1), x]
            distance[x] = 1 if other else min(distance[x] + 1, _FAR)
            nearest = min(squared[y, x], distance[x])
            squared[y, x] = nearest * nearest if labels[y, x] != 0 else 0
    # One row of column distances at a time, with room on both sides to look beyond the ends.
    column = np.full(3 * width, _FAR * _FAR, np.int32)
    for y in range(height):
        row = squared[y]
        column[width : 2 * width] = row
        _bound_along_row(labels[y], row)
        largest, k = row.max(), 1
        while k < width and k * k < largest:
            left, right = column[width - k : 2 * width - k], column[width + k : 2 * width + k]
            largest = np.int32(0)
            for x in range(width):
                # Pixels beyond the cell's end in this row are no closer than that end.
                row[x] = min(row[x], np.int32(k * k) + min(left[x], right[x]))
                largest = max(largest, row[x])
            k += 1
    return squared


@compiled(inline="always")
def _bound_along_row(labels, squared):
    """Lower squared distances to those of the next other label to the left and to the right."""
    width = len(labels)
    start = 0
    for end in range(1, width + 1):
        if end < width and labels[end] == labels[start]:
            continue
        for x in range(start, end):
            nearest = min(x + 1 - start if start > 0 else _FAR, end - x if end < width else _FAR)
            squared[x] = min(squared[x], nearest * nearest)
        start = end


@compiled()
def _scaled_roots(squared, labels, peak):
    """Square roots, scaled for each label's maximum to be `peak`; labels: int32, compact."""
    highest = np.zeros(labels.max() + 1, np.int32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label != 0 and squared[y, x] > highest[label]:
                highest[label] = squared[y, x]
    factors = np.zeros(len(highest), np.float32)
    for label in range(1, len(highest)):
        if highest[label] > 0:
            factors[label] = peak / np.sqrt(np.float32(highest[label]))
    distance = np.empty(labels.shape, np.float32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            root = np.sqrt(np.float32(squared[y, x]))
            distance[y, x] = root * factors[labels[y, x]]
    return distance
