"""One peak a cell: distance maps reconstructed from each cell's highest pixel, compiled.

A cell with a neck has two peaks, and reads as two cells at a small marker contrast. Lowering what
stands beyond the neck to the height of the neck leaves one peak and the same borders.
"""

import numpy as np

from isl_jax.compiled import compiled

# Above this squared distance all eight neighbours of a pixel are of its own label.
_NEAR_OTHERS = 2


@compiled()
def keep_single_peaks(squared, labels):
    """Lower squared distances so that every piece of a label has one regional maximum, in place.

    squared: int32 [H, W] of `labels` int32 [H, W], 1 or more inside cells, 0 outside. A piece is
    8-connected; each pixel becomes the highest level at which a path leads from it to the piece's
    highest pixel (the first of equally high ones): the reconstruction by dilation from that pixel.
    """
    height, width = labels.shape
    wide = width + 2
    # With a border of zeros; negative until a path has come by.
    values = np.zeros((height + 2) * wide, np.int32)
    peaks = np.full(labels.max() + 1, -1, np.int32)
    counts = np.zeros(len(peaks), np.int32)
    highest = np.int32(0)
    for y in range(height):
        row = (y + 1) * wide + 1
        for x in range(width):
            label = labels[y, x]
            if label != 0:
                value = squared[y, x]
                values[row + x] = -value
                counts[label] += 1
                if peaks[label] < 0 or value > -values[peaks[label]]:
                    peaks[label] = row + x
                    highest = max(highest, value)
    # Pixels that wait to be gone on from, as one linked list a level.
    waiting = np.full(highest + 1, -1, np.int32)
    below = np.empty(values.size, np.int32)
    left, start = 0, wide
    for label in range(1, len(peaks)):  # one after the other: a cell fits into the fastest cache
        if counts[label] > 0:
            left += _flood(peaks[label], counts[label], values, waiting, below, labels)
    while left > 0:  # further pieces of labels
        while values[start] >= 0:
            start += 1
        left = _flood(_peak_of_piece(start, values, labels), left, values, waiting, below, labels)
    for y in range(height):
        row = (y + 1) * wide + 1
        for x in range(width):
            squared[y, x] = values[row + x]


@compiled(inline="always")
def _label_at(at, labels):
    wide = labels.shape[1] + 2
    return labels[at // wide - 1, at % wide - 1]


@compiled(inline="always")
def _steps(labels):
    wide = labels.shape[1] + 2
    return np.array([-wide - 1, -wide, -wide + 1, -1, 1, wide - 1, wide, wide + 1])


@compiled()
def _flood(peak, left, values, waiting, below, labels):
    """Settle the pixels that paths from `peak` reach, highest first, until `left` of them are.

    Returns how many remain.
    """
    # Unsigned: what is never negative is looked up faster.
    around = _steps(labels).astype(np.uint64)
    at, level = peak, -values[peak]
    values[at] = level
    below[at] = -1
    waiting[level] = at
    left -= 1
    while level > 0 and left > 0:
        at = waiting[level]
        if at < 0:
            level -= 1
            continue
        waiting[level] = below[at]
        for step in around:
            near = np.uint64(at) + step
            value = values[near]
            if value < 0 and (
                level > _NEAR_OTHERS or _label_at(np.int64(near), labels) == _label_at(at, labels)
            ):
                value = min(level, -value)
                values[near] = value
                below[near] = waiting[value]
                waiting[value] = np.int32(near)
                left -= 1
    waiting[: level + 1] = -1
    return left


@compiled()
def _peak_of_piece(start, values, labels):
    """The highest pixel of the piece that `start`, its first one, belongs to."""
    label, around = _label_at(start, labels), _steps(labels)
    seen, stack, best = {start}, [start], start
    while stack:
        at = stack.pop()
        if values[at] < values[best] or (values[at] == values[best] and at < best):
            best = at
        for step in around:
            near = at + step
            if values[near] < 0 and near not in seen and _label_at(near, labels) == label:
                seen.add(near)
                stack.append(near)
    return best
