"""Compiled marker-controlled watershed, equal to scikit-image's label for label, ties included.

Works on padded levels, as `reconstruction` makes them; releases the interpreter lock.
"""

import numpy as np

from isl_jax.compiled import compiled

# Below every depth of an int32 level.
_NEVER = -(1 << 40)


def flood(levels: np.ndarray, labels: np.ndarray, width: int) -> None:
    """Watershed from the highest level down, 4-connected, in place of `labels`.

    levels: int32, padded. labels: int32, padded: −1 outside the mask, 0 to be flooded, ids > 0
    at the markers, which are regional maxima; width: padded row length. Pixels leave a queue
    ordered by depth (~level), then by time of entry, and pass their label on to neighbours without
    one. All marker pixels enter at time 0; what tells those of one depth apart is how
    scikit-image's binary heap happens to hold them. So that heap is re-enacted, but only down to
    the last depth where it matters; below, the times of entry are distinct and a queue of buckets
    does the same faster.
    """
    entries = np.sort(_active_markers(levels, labels, width))
    contested = _last_contested_depth(levels, labels, width, entries)
    if contested == _NEVER:
        entered = (entries & 0xFFFFFFFF).astype(np.int32)
    else:
        keys, pixels = _flood_by_heap(levels, labels, width, contested)
        entered = pixels[np.argsort(keys)]
    _flood_by_buckets(levels, labels, width, entered)


@compiled()
def _flood_by_heap(levels, labels, width, contested):
    """Flood down to the contested depth; returns the keys and pixels that are still queued."""
    capacity = 1
    for label in labels:
        capacity += label >= 0
    keys = np.empty(capacity, np.int64)
    pixels = np.empty(capacity, np.int32)
    size, age = 0, np.int64(0)
    for i in range(len(labels)):
        if labels[i] > 0:
            _push(keys, pixels, size, np.int64(~levels[i]) << 32, i)
            size += 1
    while size > 0 and keys[0] >> 32 <= contested:
        i, depth = pixels[0], keys[0] >> 32
        size -= 1
        _pop(keys, pixels, size)
        for j in (i - width, i - 1, i + 1, i + width):
            if labels[j] == 0:
                labels[j] = labels[i]
                age += 1
                _push(keys, pixels, size, (max(np.int64(~levels[j]), depth) << 32) | age, j)
                size += 1
    return keys[:size], pixels[:size]


@compiled()
def _flood_by_buckets(levels, labels, width, entered):
    """Flood on from the pixels that have entered, given in their order.

    Pixels wait in buckets of neighbouring depths, in the order of entry; only the bucket in turn
    is held in a heap, of a few entries. Every pixel enters once, so the room of each is known.
    """
    first, fold = _bucket_table(levels, labels, entered)
    end = np.zeros(first[-1] + 1, np.int32)
    for i in range(len(labels)):
        if labels[i] == 0:
            end[_bucket(first, fold, ~levels[i]) + 1] += 1
    for i in entered:
        end[_bucket(first, fold, ~levels[i]) + 1] += 1
    for bucket in range(1, len(end)):
        end[bucket] += end[bucket - 1]
    begin = end.copy()
    waiting = np.empty(end[-1], np.int32)
    for i in entered:
        bucket = _bucket(first, fold, ~levels[i])
        waiting[end[bucket]] = i
        end[bucket] += 1
    keys = np.empty(len(waiting), np.int64)
    pixels = np.empty(len(waiting), np.int32)
    age = np.int64(0)
    for bucket in range(len(begin) - 1):
        size = 0
        for place in range(begin[bucket], end[bucket]):
            i = waiting[place]
            age += 1
            _push(keys, pixels, size, (np.int64(~levels[i]) << 32) | age, i)
            size += 1
        while size > 0:
            i, depth = pixels[0], keys[0] >> 32
            size -= 1
            _pop(keys, pixels, size)
            for j in (i - width, i - 1, i + 1, i + width):
                if labels[j] == 0:
                    labels[j] = labels[i]
                    # Water that spills into a hollow is already as deep as where it came from.
                    depth_j = max(np.int64(~levels[j]), depth)
                    into = _bucket(first, fold, depth_j)
                    if into == bucket:
                        age += 1
                        _push(keys, pixels, size, (depth_j << 32) | age, j)
                        size += 1
                    else:
                        waiting[end[into]] = j
                        end[into] += 1


@compiled()
def _bucket_table(levels, labels, entered):
    """Divide the depths into about as many buckets as pixels, however the depths are distributed.

    The upper 16 bits of a depth choose a class, whose share of the buckets is a power of 2.
    Returns (first, fold): each class's first bucket, and the bits of the lower 16 to be dropped.
    """
    counts = np.zeros(1 << 16, np.int32)
    for i in range(len(labels)):
        if labels[i] == 0:
            counts[(~levels[i] >> 16) + (1 << 15)] += 1
    for i in entered:
        counts[(~levels[i] >> 16) + (1 << 15)] += 1
    first = np.zeros(len(counts) + 1, np.int32)
    fold = np.full(len(counts), 16, np.int32)
    for k in range(len(counts)):
        while fold[k] > 0 and counts[k] > 1 << (16 - fold[k]):
            fold[k] -= 1
        first[k + 1] = first[k] + ((1 << (16 - fold[k])) if counts[k] > 0 else 0)
    return first, fold


@compiled()
def _bucket(first, fold, depth):
    k = (depth >> 16) + (1 << 15)
    return first[k] + ((depth & 0xFFFF) >> fold[k])


@compiled()
def _active_markers(levels, labels, width):
    """Marker pixels that have a neighbour to pass their label on to: depth << 32 | pixel."""
    entries = np.empty(len(labels), np.int64)
    count = 0
    for i in range(len(labels)):
        if labels[i] > 0:
            for j in (i - width, i - 1, i + 1, i + width):
                if labels[j] == 0:
                    entries[count] = (np.int64(~levels[i]) << 32) | i
                    count += 1
                    break
    return entries[:count]


@compiled()
def _last_contested_depth(levels, labels, width, entries):
    """Greatest depth at which the order of tied marker pixels can matter, or `_NEVER`.

    It can where tied pixels could both label one neighbour, or where they pass their labels on to
    neighbours that tie again; else the neighbours' depths settle all that follows.
    """
    stop = len(entries)
    while stop > 0:
        depth = entries[stop - 1] >> 32
        start = stop - 1
        while start > 0 and entries[start - 1] >> 32 == depth:
            start -= 1
        for a in range(start + 1, stop):
            for b in range(start, a):
                if _contest(
                    levels, labels, width, entries[a] & 0xFFFFFFFF, entries[b] & 0xFFFFFFFF
                ):
                    return depth
        stop = start
    return np.int64(_NEVER)


@compiled()
def _contest(levels, labels, width, a, b):
    for i in (a - width, a - 1, a + 1, a + width):
        for j in (b - width, b - 1, b + 1, b + width):
            tied = labels[i] == 0 and labels[j] == 0 and levels[i] == levels[j]
            if tied and (i != j or labels[a] != labels[b]):
                return True
    return False


@compiled()
def _push(keys, pixels, place, key, pixel):
    """Let a new entry rise from the heap's end, `place`, while its parent's key is greater."""
    while place > 0:
        parent = (place - 1) >> 1
        if keys[parent] <= key:
            break
        keys[place] = keys[parent]
        pixels[place] = pixels[parent]
        place = parent
    keys[place] = key
    pixels[place] = pixel


@compiled()
def _pop(keys, pixels, size):
    """Remove the first entry; the last one, at `size`, takes its place and sinks.

    The gap is led to the bottom and the last entry rises from there: it ends above its equals,
    where sinking from the top would leave it, with half the comparisons.
    """
    key, pixel = keys[size], pixels[size]
    gap, child = 0, 1
    while child < size:
        if child + 1 < size and keys[child + 1] < keys[child]:
            child += 1
        keys[gap] = keys[child]
        pixels[gap] = pixels[child]
        gap, child = child, 2 * child + 1
    while gap > 0:
        parent = (gap - 1) >> 1
        if keys[parent] < key:
            break
        keys[gap] = keys[parent]
        pixels[gap] = pixels[parent]
        gap = parent
    keys[gap] = key
    pixels[gap] = pixel
