"""A row for every object: where it is, how large, what shape, how bright in each channel."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.measure import regionprops_table

from isl_jax.inference.large import ImageLike, release
from isl_jax.tabular import write_csv

_BAND_ROWS = 2048
# Sides of a pixel that differ by less make it a square.
_SQUARE = 0.01
# Column → property of scikit-image; pixels and radians.
_PROPERTIES = {
    "id": "label",
    "area_px": "area",
    "x_px": "centroid-1",
    "y_px": "centroid-0",
    "left_px": "bbox-1",
    "top_px": "bbox-0",
    "right_px": "bbox-3",
    "bottom_px": "bbox-2",
    "equivalent_diameter_px": "equivalent_diameter_area",
    "major_axis_px": "axis_major_length",
    "minor_axis_px": "axis_minor_length",
    "perimeter_px": "perimeter",
    "eccentricity": "eccentricity",
    "extent": "extent",
    "orientation_rad": "orientation",
}
_LENGTHS = [name for name in _PROPERTIES if name.endswith("_px") and name != "area_px"]


def write_table(
    path: Path,
    labels: np.ndarray,
    planes: ImageLike | None,
    channels: Sequence[str],
    *,
    spacing: tuple[float, float] | None = None,
    binning: int = 1,
) -> None:
    """Write a CSV file with a row for every object of labels `[H, W]`, in order of their ids.

    `planes` `[C, H, W]` with their `channels` give the mean intensities, in raw units. Columns in
    px count pixels of the input file; where a pixel of the labels is `binning` of these, squared, a
    column `label_pixel_px` says so. With the `spacing` of the labels' pixels in µm, (y, x), areas
    are given in µm², too, and lengths in µm where the pixels are square. Circularity is
    4π·area / perimeter², 1 for a disc.
    """
    columns = measure_objects(labels, planes, channels, spacing=spacing, binning=binning)
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    told = ([f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows)
    write_csv(path, list(columns), told)


def measure_objects(
    labels: np.ndarray,
    planes: ImageLike | None,
    channels: Sequence[str],
    *,
    spacing: tuple[float, float] | None = None,
    binning: int = 1,
) -> dict[str, np.ndarray]:
    """The columns of `write_table`, by name."""
    wanted = sorted({name.split("-")[0] for name in _PROPERTIES.values()})
    # A channel that is repeated is measured once.
    used = {name: index for index, name in reversed(list(enumerate(channels)))}
    parts: list[dict[str, np.ndarray]] = []
    for rows, window in _windows(labels):
        image = None
        if planes is not None:
            pixels = np.asarray(planes[:, rows, slice(None)])
            image = np.stack([pixels[index] for index in used.values()], axis=-1)
            release(planes)
        properties = [*wanted, "intensity_mean"] if image is not None else wanted
        found = regionprops_table(window, image, properties=properties)
        part = {name: np.asarray(found[source]) for name, source in _PROPERTIES.items()}
        for name in ("y_px", "top_px", "bottom_px"):
            part[name] = part[name] + rows.start
        means = {
            f"mean_{c}": found[f"intensity_mean-{k}"]
            for k, c in enumerate(used)
            if image is not None
        }
        parts.append(part | means)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["id"], kind="stable")
    columns = {name: values[order] for name, values in columns.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        circularity = 4 * np.pi * columns["area_px"] / columns["perimeter_px"] ** 2
    # The perimeter of a few pixels is no length to go by.
    columns["circularity"] = np.where(columns["perimeter_px"] > 0, np.minimum(circularity, 1), 1.0)
    _unbin(columns, binning)
    if spacing:
        height, width = (side / binning for side in spacing)
        columns["area_um2"] = columns["area_px"] * (height * width)
        if math.isclose(height, width, rel_tol=_SQUARE):
            side = math.sqrt(height * width)
            columns |= {f"{name[:-3]}_um": columns[name] * side for name in _LENGTHS}
    if binning > 1:
        columns["label_pixel_px"] = np.full(len(order), binning)
    return columns


def _unbin(columns: dict[str, np.ndarray], binning: int) -> None:
    """From pixels of the labels to those of the input file."""
    if binning == 1:
        return
    columns["area_px"] = columns["area_px"] * binning**2
    for name in _LENGTHS:
        columns[name] = columns[name] * binning
    # Places are of the centres of pixels, the first one at 0.
    for name in ("x_px", "y_px"):
        columns[name] = columns[name] + (binning - 1) / 2


def _windows(labels: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows that hold whole objects, and these alone; every object once."""
    if len(labels) <= 2 * _BAND_ROWS:
        yield slice(0, len(labels)), np.asarray(labels)
        return
    tops, bottoms = _extents(labels)
    ids = np.flatnonzero(bottoms > 0)
    band = tops[ids] // _BAND_ROWS
    # An image without objects has a table without rows.
    yield slice(0, 1), np.zeros((1, labels.shape[1]), np.int32)
    for number in np.unique(band):
        mine = ids[band == number]
        rows = slice(int(tops[mine].min()), int(bottoms[mine].max()))
        keep = np.zeros(len(tops), np.int32)
        keep[mine] = mine
        yield rows, keep[np.asarray(labels[rows])]
        release(labels)


def _extents(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row, and the row after the last, of each id; 0 and 0 for an id not there."""
    count = 0
    boxes: list[tuple[int, list]] = []
    for top in range(0, len(labels), _BAND_ROWS):
        found = ndimage.find_objects(np.asarray(labels[top : top + _BAND_ROWS]))
        boxes.append((top, found))
        count = max(count, len(found))
        release(labels)
    tops, bottoms = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    for top, found in boxes:
        for label, box in enumerate(found, 1):
            if box is not None:
                if bottoms[label] == 0:
                    tops[label] = top + box[0].start
                bottoms[label] = top + box[0].stop
    return tops, bottoms
