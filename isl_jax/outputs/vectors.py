"""Outlines of labelled objects, closed polygons, in the files that ImageJ and QuPath open."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import roifile

from isl_jax.compiled import compiled
from isl_jax.files import write_bytes, write_text, written_whole
from isl_jax.inference.large import release

_BAND_ROWS = 1024
# An archive without members: its end record alone.
_EMPTY_ZIP = b"PK\x05\x06" + bytes(18)


def write_rois(path: Path, polygons: Sequence[np.ndarray]) -> None:
    """Write polygons `[V, 2]` (x, y) as a zip of ImageJ regions, named by the objects' ids."""
    regions = []
    for label, polygon in enumerate(polygons, 1):
        region = roifile.ImagejRoi.frompoints(polygon, name=f"{label:05d}")
        region.roitype = roifile.ROI_TYPE.POLYGON
        regions.append(region)
    if not regions:
        write_bytes(path, _EMPTY_ZIP)
        return
    with written_whole(path) as draft:
        roifile.roiwrite(draft, regions)


def write_geojson(path: Path, polygons: Sequence[np.ndarray]) -> None:
    """Write polygons `[V, 2]` (x, y) as GeoJSON that QuPath imports: one detection an object."""
    features = [
        {
            "type": "Feature",
            "id": str(label),
            "geometry": {
                "type": "Polygon",
                # GeoJSON wants rings closed.
                "coordinates": [[*polygon.tolist(), polygon[0].tolist()]],
            },
            "properties": {"objectType": "detection", "name": str(label)},
        }
        for label, polygon in enumerate(polygons, 1)
    ]
    collection = {"type": "FeatureCollection", "features": features}
    write_text(path, json.dumps(collection, separators=(",", ":")) + "\n")


def outlines(labels: np.ndarray, *, binning: int = 1) -> list[np.ndarray]:
    """The outer outline of every object of labels `[H, W]`, ids 1..n without gaps.

    Returns n arrays int32 `[V, 2]` of corners (x, y) in pixel edges of the input file, 0..W·binning
    and 0..H·binning, clockwise, the first corner not repeated: the polygon covers the object's
    pixels and the holes in it. Of an object in several parts it is the part that holds its first
    pixel; parts that meet at a corner are one part.
    """
    first = first_pixels(labels)
    if len(first) == 0:
        return []
    plain = labels.view(np.ndarray)
    ends = np.cumsum(_lengths(plain, first))
    corners = np.empty((int(ends[-1]), 2), np.int32)
    _fill(plain, first, ends, corners)
    release(labels)
    corners *= binning
    return np.split(corners, ends[:-1])


def first_pixels(labels: np.ndarray) -> np.ndarray:
    """Row-major index of the first pixel of each id 1..n, int64 `[n]`; −1 for an id not there."""
    first = np.full(1, -1, np.int64)
    width = labels.shape[1]
    # From the last pixel to the first, so that the first one stays.
    for top in reversed(range(0, len(labels), _BAND_ROWS)):
        flat = np.asarray(labels[top : top + _BAND_ROWS]).ravel()
        missing = int(flat.max(initial=0)) + 1 - len(first)
        if missing > 0:
            first = np.concatenate([first, np.full(missing, -1, np.int64)])
        first[flat[::-1]] = np.arange(flat.size - 1, -1, -1) + top * width
        release(labels)
    return first[1:]


@compiled()
def _walk(labels, index, corners, at):
    """Walk round the object of a first pixel, clockwise; write corners from `at` on, if any.

    Returns the number of corners. Headings: 0 right, 1 down, 2 left, 3 up, the object at the right.
    """
    height, width = labels.shape
    top, left = index // width, index % width
    label = labels[top, left]
    y, x, heading, count = top, left, 0, 0
    while True:
        if corners.shape[0] > 0:
            corners[at + count, 0] = x
            corners[at + count, 1] = y
        count += 1
        # Straight on, until the outline turns.
        while True:
            if heading == 0:
                x += 1
            elif heading == 1:
                y += 1
            elif heading == 2:
                x -= 1
            else:
                y -= 1
            # The two pixels ahead of this corner.
            if heading == 0:
                left_row, left_column, right_row, right_column = y - 1, x, y, x
            elif heading == 1:
                left_row, left_column, right_row, right_column = y, x, y, x - 1
            elif heading == 2:
                left_row, left_column, right_row, right_column = y, x - 1, y - 1, x - 1
            else:
                left_row, left_column, right_row, right_column = y - 1, x - 1, y - 1, x
            if (
                0 <= left_row < height
                and 0 <= left_column < width
                and labels[left_row, left_column] == label
            ):
                heading = (heading + 3) % 4
                break
            if not (
                0 <= right_row < height
                and 0 <= right_column < width
                and labels[right_row, right_column] == label
            ):
                heading = (heading + 1) % 4
                break
        if y == top and x == left and heading == 0:
            return count


@compiled()
def _lengths(labels, first):
    nothing = np.empty((0, 2), np.int32)
    lengths = np.zeros(first.size, np.int64)
    for k in range(first.size):
        if first[k] >= 0:
            lengths[k] = _walk(labels, first[k], nothing, 0)
    return lengths


@compiled()
def _fill(labels, first, ends, corners):
    at = 0
    for k in range(first.size):
        if first[k] >= 0:
            _walk(labels, first[k], corners, at)
        at = ends[k]
