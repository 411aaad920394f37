"""Compiled h-maxima: reconstruction by dilation and its regional maxima, 8-connected.

Equal to scikit-image's `reconstruction` and `local_maxima` pixel for pixel. The kernels work on
*levels*: integers in the order of the original values, flattened row by row with a one-pixel border
that never takes part, so that neighbours need no range checks. Integers compare fast, and 64 bits
hold a pixel's place in the watershed's queue. The kernels release the interpreter lock.
"""

import numpy as np

from isl_jax.compiled import compiled

# States of a pixel in the search for regional maxima.
_BELOW, _SEEN = 1, 2


@compiled()
def levels_of(bits):
    """Bit patterns of a float image, int32 or int64 [H, W] → levels of the same order, padded.

    Returns [(H + 2)·(W + 2)]; the border has the lowest value of the dtype. No NaN, no −0.
    """
    height, width = bits.shape
    largest = np.iinfo(bits.dtype).max
    levels = np.full((height + 2, width + 2), -largest - 1, bits.dtype)
    for y in range(height):
        for x in range(width):
            value = bits[y, x]
            # Negative floats are stored as sign and magnitude: turn their order round.
            levels[y + 1, x + 1] = value if value >= 0 else value ^ largest
    return levels.ravel()


@compiled()
def reconstruct(seed, ceiling, width):
    """Reconstruction by dilation of `seed` under `ceiling`, 8-connected, in place of `seed`.

    The hybrid algorithm of Vincent 1993 (IEEE TIP 2:176): a forward and a backward pass settle
    nearly all pixels, a queue the rest. seed ≤ ceiling: padded levels; width: padded row length.
    """
    first, last = width + 1, len(seed) - width - 2
    for i in range(first, last + 1):
        value = max(seed[i], seed[i - 1], seed[i - width - 1], seed[i - width], seed[i - width + 1])
        seed[i] = min(value, ceiling[i])
    queue = np.empty(len(seed), np.int32)
    queued = np.zeros(len(seed), np.uint8)
    head = tail = 0
    for i in range(last, first - 1, -1):
        value = max(seed[i], seed[i + 1], seed[i + width - 1], seed[i + width], seed[i + width + 1])
        value = min(value, ceiling[i])
        seed[i] = value
        for j in (i + 1, i + width - 1, i + width, i + width + 1):
            if seed[j] < value and seed[j] < ceiling[j]:
                queue[tail] = i
                queued[i] = 1
                tail += 1
                break
    # Each pixel stands in the ring at most once, so the ring never overflows.
    count = tail
    while count > 0:
        i = queue[head]
        head = head + 1 if head + 1 < len(queue) else 0
        count -= 1
        queued[i] = 0
        value = seed[i]
        for dy in (-width, 0, width):
            for j in range(i + dy - 1, i + dy + 2):
                if seed[j] < value and seed[j] < ceiling[j]:
                    seed[j] = min(value, ceiling[j])
                    if not queued[j]:
                        tail = tail if tail < len(queue) else 0
                        queue[tail] = j
                        queued[j] = 1
                        tail += 1
                        count += 1


def regional_maxima(levels: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the 8-connected regional maxima of `levels` that reach into the mask.

    levels: padded; mask: bool [H, W]. Returns (labels, count): labels int32, padded: −1 outside the
    mask, in it the ids 1..count of the maxima, in the order of their first pixels in or out of the
    mask, and 0 elsewhere. A constant image has no maximum.
    """
    labels = np.pad(mask, 1).astype(np.int32).ravel() - 1
    first_pixel = _number_maxima(levels, labels, mask.shape[1] + 2)
    order = np.argsort(first_pixel)
    if np.any(order[1:] < order[:-1]):
        # A maximum may be met after its first pixel, where that lies outside the mask.
        id_of = np.empty(len(order) + 2, np.int32)
        id_of[0], id_of[-1] = 0, -1
        id_of[order + 1] = np.arange(1, len(order) + 1)
        labels = id_of[labels]
    return labels, len(order)


@compiled()
def _number_maxima(levels, labels, width):
    """Write the maxima's ids into `labels`, in the order they are met; returns first pixels."""
    num_pixels = (len(labels) // width - 2) * (width - 2)
    state = _below_a_neighbour(levels.reshape(-1, width))
    plateau = np.empty(len(levels), np.int32)
    first_pixel = np.empty(num_pixels, np.int32)
    count = 0
    for start in range(width + 1, len(levels) - width - 1):
        if labels[start] != 0 or state[start]:
            continue
        size = _plateau(levels, width, start, state, plateau)
        if 0 < size < num_pixels:
            first_pixel[count] = plateau[:size].min()
            count += 1
            for i in plateau[:size]:
                if labels[i] == 0:
                    labels[i] = count
    return first_pixel[:count]


@compiled()
def _below_a_neighbour(levels):
    """Mark the pixels that have a greater one among their 8 neighbours: uint8, flattened."""
    below = np.zeros(levels.shape, np.uint8)
    for y in range(1, levels.shape[0] - 1):
        # Rows without branches, which the compiler turns into vector instructions.
        up, row, down, out = levels[y - 1], levels[y], levels[y + 1], below[y]
        for x in range(1, levels.shape[1] - 1):
            value = max(max(up[x - 1], up[x]), max(up[x + 1], row[x - 1]))
            value = max(value, max(max(row[x + 1], down[x - 1]), max(down[x], down[x + 1])))
            out[x] = _BELOW if value > row[x] else 0
    return below.ravel()


@compiled()
def _plateau(levels, width, start, state, members):
    """List the pixels of a plateau into `members`; returns their number, or 0 if not maximal.

    Members that are below a neighbour end the search on their side: one is enough to know.
    """
    value = levels[start]
    members[0] = start
    state[start] = _SEEN
    size, done, maximal = 1, 0, True
    while done < size:
        i = members[done]
        done += 1
        for dy in (-width, 0, width):
            for j in range(i + dy - 1, i + dy + 2):
                if levels[j] == value and state[j] == _BELOW:
                    maximal = False
                elif levels[j] == value and state[j] != _SEEN:
                    state[j] = _SEEN
                    members[size] = j
                    size += 1
    return size if maximal else 0
