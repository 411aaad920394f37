"""Objects of a label image put right: splits undone, scraps left out, holes filled."""

import heapq
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull

# Corners of a pixel around its centre: a single row of pixels has an area, too.
_CORNERS = np.array([(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)])


def join_convex(
    labels: np.ndarray, image: np.ndarray, *, solidity: float, level: float, largest: float
) -> np.ndarray:
    """Join neighbouring objects of `labels` [H, W] (0 background) that look like one.

    Two are one where their union fills at least the share `solidity` of its convex hull, holds at
    most `largest` pixels, and `image` [H, W], somewhere on their border, reaches the share `level`
    of what the dimmer one is made of (its upper quartile): nuclei that touch make a waist, and
    mostly a dark line. The most convex unions come first. Returns labels in which the joined
    objects have the id of the first of them.
    """
    passes = _passes(labels, image)
    if not passes:
        return labels
    pieces = {label: _piece(labels, image, label, box) for label, box in _boxes(labels)}
    neighbours: dict[int, set[int]] = defaultdict(set)
    for one, other in passes:
        neighbours[one].add(other)
        neighbours[other].add(one)
    parent = np.arange(labels.max() + 1)
    heap: list[tuple[float, int, int, int]] = []

    def propose(one: int, other: int) -> None:
        a, b = pieces[one], pieces[other]
        area = a.area + b.area
        bright = passes[min(one, other), max(one, other)] >= level * min(a.bright, b.bright)
        if bright and area <= largest:
            share = area / ConvexHull(np.concatenate([a.hull, b.hull])).volume
            if share >= solidity:
                # The areas tell later whether both are still what they were.
                heapq.heappush(heap, (-share, one, other, area))

    for one, other in passes:
        propose(one, other)
    while heap:
        _, one, other, area = heapq.heappop(heap)
        if one not in pieces or other not in pieces:
            continue
        one, other = min(one, other), max(one, other)
        a, b = pieces[one], pieces[other]
        if a.area + b.area != area:
            continue
        pieces[one] = a.joined(b)
        del pieces[other]
        parent[parent == other] = one
        for third in neighbours.pop(other) - {one}:
            neighbours[third].discard(other)
            neighbours[third].add(one)
            neighbours[one].add(third)
            key, old = (min(one, third), max(one, third)), (min(other, third), max(other, third))
            passes[key] = max(passes.get(key, -np.inf), passes[old])
        neighbours[one].discard(other)
        for third in sorted(neighbours[one]):
            propose(one, third)
    return parent[labels].astype(labels.dtype)


class _Piece:
    """An object: its area, how bright it is, and the points of its convex hull [n, 2]."""

    def __init__(self, area: int, bright: float, points: np.ndarray):
        self.area, self.bright = area, bright
        self.hull = points[ConvexHull(points).vertices]

    def joined(self, other: "_Piece") -> "_Piece":
        points = np.concatenate([self.hull, other.hull])
        return _Piece(self.area + other.area, max(self.bright, other.bright), points)


def solidity_of(mask: np.ndarray) -> float:
    """The share of its convex hull that an object, a bool mask [h, w], fills: 0..1."""
    return float(mask.sum() / ConvexHull(_outline(mask)).volume)


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Connected components of a mask, 4-connected: ids 1…n, 0 background; and n."""
    found: Any = ndimage.label(mask)
    return found


def without_holes(mask: np.ndarray, largest: float) -> np.ndarray:
    """Background enclosed by the mask filled where it has fewer pixels than `largest`."""
    holes, _ = components(~mask)
    small = np.bincount(holes.ravel()) < largest
    small[0] = False
    return mask | small[holes]


def tidied(labels: np.ndarray, *, smallest: float, solidity: float = 0.0) -> np.ndarray:
    """Each object's largest piece, its holes filled; ids 1…n of those that are kept."""
    out = np.zeros(labels.shape, np.int32)
    count = 0
    for box, mask in _objects(labels):
        if mask.sum() < smallest or (solidity and solidity_of(mask) < solidity):
            continue
        count += 1
        free = mask & (out[box] == 0)
        out[box][free] = count
    return out


def _objects(labels: np.ndarray) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        pieces, count = components(labels[box] == label)
        if count > 1:
            pieces = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
        mask = ndimage.binary_fill_holes(pieces)
        # A neighbour inside a hole stays.
        yield box, mask & ((labels[box] == 0) | (labels[box] == label))


def _boxes(labels: np.ndarray) -> list[tuple[int, tuple[slice, slice]]]:
    found = ndimage.find_objects(labels)
    return [(label, box) for label, box in enumerate(found, start=1) if box is not None]


def _piece(labels: np.ndarray, image: np.ndarray, label: int, box: tuple[slice, slice]) -> _Piece:
    mask = labels[box] == label
    points = _outline(mask) + np.array([box[0].start, box[1].start])
    return _Piece(int(mask.sum()), float(np.percentile(image[box][mask], 75)), points)


def _outline(mask: np.ndarray) -> np.ndarray:
    """Corners of the first and the last pixel of each row [n, 2]: their hull is the object's."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    ends = np.stack([np.concatenate([rows, rows]), np.concatenate([first, last])], axis=1)
    return (ends[:, None] + _CORNERS).reshape(-1, 2)


def _passes(labels: np.ndarray, image: np.ndarray) -> dict[tuple[int, int], float]:
    """For neighbours, the lower id first: the highest value on their border."""
    found: dict[tuple[int, int], float] = {}
    for here, there in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1], np.s_[1:]),
    ):
        a, b = labels[here], labels[there]
        border = (a != b) & (a > 0) & (b > 0)
        low, high = np.minimum(a[border], b[border]), np.maximum(a[border], b[border])
        values = np.minimum(image[here][border], image[there][border])
        order = np.lexsort((values, high, low))
        # The last of each pair in this order is its highest.
        for one, other, value in zip(low[order], high[order], values[order], strict=True):
            key = int(one), int(other)
            found[key] = max(found.get(key, -np.inf), float(value))
    return found
