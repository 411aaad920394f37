"""A stain to instance labels by classical means: drafts that a person corrects, or counts.

No network and no label: background, threshold and split are found in the image itself. Sizes are
relative to the typical nucleus, whose diameter is measured first, so that no pixel size is needed.
"""

from typing import Any

import numpy as np
from scipy import ndimage
from skimage import feature, filters, morphology
from skimage.segmentation import find_boundaries, watershed

from isl_jax.instances.joining import components, join_convex, tidied, without_holes
from isl_jax.instances.watershed import label_instances

# An object ends where its stain falls to this share of its way from background to its own peak:
# brightness differs tenfold between nuclei of one field.
_EDGE = 0.4
# Standard deviations of the noise that an object must rise above its background, and the share of
# what the bright ones rise.
_SIGNIFICANT, _FAINTEST = 6.0, 0.05
# Diameters below which nothing is an object but noise, pixels.
_SMALLEST_DIAMETER = 6.0
# A border falls by more than this share of its object's rise a pixel, out of focus or not.
_LEAST_SLOPE = 0.045
# Nuclei fill more of their convex hull than cytoplasm that shines between them.
_SOLID_OBJECT, _SOLID_UNION = 0.8, 0.9


def draft_nuclei(stain: np.ndarray) -> np.ndarray:
    """Labels of the nuclei (or other compact, mostly convex objects) in a stain [H, W].

    Blobs of the typical size are found (Laplacian of Gaussian) above a local background, each gets
    a threshold of its own, and pieces that are convex together are joined. Returns int32 [H, W],
    ids 1…n, 0 background; all 0 for a stain that shows nothing above its noise.
    """
    image, smooth, noise = _smoothed(stain)
    diameter = _typical_diameter(smooth, noise)
    if diameter is None:
        return np.zeros(stain.shape, np.int32)
    rise = np.clip(smooth - _opened(smooth, diameter), 0, None)
    basins = _blobs(np.sqrt(rise), diameter)
    labels = np.where(rise > _thresholds(rise, basins, noise)[basins], basins, 0)
    typical = np.pi / 4 * diameter**2
    labels = join_convex(
        labels,
        ndimage.gaussian_filter(image, 0.05 * diameter),
        solidity=_SOLID_UNION,
        level=0.85,
        largest=4 * typical,
    )
    thin = morphology.disk(max(1, int(0.06 * diameter)))
    labels[~ndimage.binary_opening(labels > 0, thin)] = 0
    labels = _with_edges(labels, rise)
    return tidied(labels, smallest=0.1 * typical, solidity=_SOLID_OBJECT)


def draft_cells(stain: np.ndarray, nuclei: np.ndarray | None = None) -> np.ndarray:
    """Labels of whole cells in a stain [H, W] that fills them, one for each of `nuclei`.

    nuclei: labels [H, W] of the same field (`draft_nuclei` of its nuclear stain), which the cells
    grow from, or None: then cells are guessed from dark lines and waists, which is much weaker.
    Borders run where the stain changes fastest, half way between nuclei where it does not. Stained
    objects without a nucleus are cells, too. Returns int32 [H, W] as `draft_nuclei`.
    """
    _, smooth, noise = _smoothed(stain)
    mask = _foreground(smooth, noise)
    if mask is None:
        return np.zeros(stain.shape, np.int32)
    background = float(np.median(smooth[~mask])) if not mask.all() else float(smooth.min())
    level = np.log(np.maximum(smooth - background, 0) + 0.05 * (np.ptp(smooth[mask]) + 1e-12))
    seeds = _seeds_of_cells(level, mask) if nuclei is None else _with_lonely(nuclei, mask)
    if not seeds.any():
        return np.zeros(stain.shape, np.int32)
    areas = np.bincount(seeds.ravel())[1:]
    diameter = 2 * np.sqrt(np.median(areas[areas > 0]) / np.pi)
    mask |= seeds > 0
    change = ndimage.gaussian_gradient_magnitude(level, 1.0)
    change /= max(float(np.percentile(change[mask], 90)), 1e-12)
    way = _depth(seeds == 0) / diameter
    labels = watershed(change + 0.5 * way, seeds, mask=mask)
    # A threshold of its own for each cell, as for nuclei.
    ids = np.arange(1, labels.max() + 1)
    inside = np.append(np.inf, np.nan_to_num(ndimage.median(smooth, labels, ids), nan=np.inf))
    keep = smooth > background + _EDGE * (inside - background)[labels]
    keep = np.logical_or(ndimage.binary_opening(keep & (labels > 0)), seeds > 0)
    keep = without_holes(keep, 0.05 * diameter**2)
    return tidied(np.where(keep, labels, 0), smallest=0.1 * np.pi / 4 * diameter**2)


def _smoothed(stain: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The stain as float32, smoothed by a pixel, and the standard deviation of its noise."""
    image = np.asarray(stain, np.float32)
    smooth = ndimage.gaussian_filter(image, 1.0)
    noise = 1.4826 * float(np.median(np.abs(image - smooth)))
    # Whole numbers are rounded, also where a camera's offset was cut off.
    least = 0.3 if np.issubdtype(np.asarray(stain).dtype, np.integer) else 1e-6 * np.ptp(smooth)
    return image, smooth, max(noise, float(least))


def _typical_diameter(smooth: np.ndarray, noise: float) -> float | None:
    """Diameter, in pixels, of the object that the middle pixel of the signal is part of."""
    low = np.percentile(smooth, 0.5)
    root = np.sqrt(np.clip(smooth - low, 0, None))
    if np.ptp(smooth) <= _SIGNIFICANT * noise:
        return None
    mask = np.asarray(ndimage.binary_fill_holes(root > filters.threshold_otsu(root)))
    pieces, count = components(mask)
    ids = np.arange(1, count + 1)
    areas = np.atleast_1d(ndimage.sum(mask, pieces, ids))
    radii = np.atleast_1d(ndimage.maximum(_depth(mask), pieces, ids))
    radii, areas = radii[areas >= 20], areas[areas >= 20]
    if not len(radii):
        return None
    order = np.argsort(radii)
    total = np.cumsum(areas[order])
    middle = radii[order][np.searchsorted(total, total[-1] / 2)]
    # The inscribed circle is smaller than an ellipse of the same area.
    return float(np.clip(2.2 * middle, _SMALLEST_DIAMETER, min(smooth.shape) / 2))


def _depth(mask: np.ndarray) -> np.ndarray:
    """Distance of each pixel of a mask to what is outside of it."""
    return np.asarray(ndimage.distance_transform_edt(mask))


def _opened(image: np.ndarray, radius: float) -> np.ndarray:
    """Local background: the image opened by a square wider than an object, then smoothed."""
    step = max(1, int(radius / 5))
    small, reach = image[::step, ::step], int(np.ceil(radius / step))
    low = ndimage.maximum_filter(ndimage.minimum_filter(small, 2 * reach + 1), 2 * reach + 1)
    low = ndimage.gaussian_filter(low, reach / 2)
    rows, columns = (np.arange(size) / step for size in image.shape)
    grid = np.meshgrid(rows, columns, indexing="ij", sparse=False)
    return ndimage.map_coordinates(low, grid, order=1, mode="nearest", output=np.float32)


def _blobs(image: np.ndarray, diameter: float) -> np.ndarray:
    """Surroundings of the blobs of an image, as labels: some objects hold several."""
    # The filter that fits a disk of this diameter has sigma = diameter / √8; a smaller one also
    # tells small neighbours apart.
    sigma = 0.7 * diameter / np.sqrt(8)
    response = -(sigma**2) * ndimage.gaussian_laplace(image, sigma)
    positive = response > 0
    if not positive.any():
        return np.zeros(image.shape, np.int32)
    contrast = 0.05 * float(np.percentile(response[positive], 95))
    near = ndimage.binary_dilation(positive, iterations=max(1, int(diameter / 4)))
    return label_instances(response, np.asarray(near), h=contrast)


def _thresholds(rise: np.ndarray, basins: np.ndarray, noise: float) -> np.ndarray:
    """For each basin's id the value above which it is its object; infinite without one."""
    boxes = ndimage.find_objects(basins)
    low, high = np.zeros(len(boxes) + 1), np.zeros(len(boxes) + 1)
    for label, box in enumerate(boxes, start=1):
        values = rise[box][basins[box] == label]
        low[label] = np.percentile(values, 2)
        high[label] = np.percentile(values[values >= np.median(values)], 75)
    found = low + _EDGE * (high - low)
    least = _SIGNIFICANT * noise
    if len(boxes):
        least = max(least, _FAINTEST * float(np.percentile(high[1:], 90)))
    found[high <= least] = np.inf
    found[0] = np.inf
    return found


def _with_edges(labels: np.ndarray, rise: np.ndarray) -> np.ndarray:
    """The objects whose stain falls at their border: others are slopes of the background."""
    ids = np.setdiff1d(labels, 0)
    if not len(ids):
        return labels
    border = np.where(find_boundaries(labels, mode="inner"), labels, 0)
    fall = ndimage.mean(ndimage.gaussian_gradient_magnitude(rise, 1.0), border, ids)
    keep = np.zeros(labels.max() + 1, bool)
    keep[ids] = fall >= _LEAST_SLOPE * ndimage.median(rise, labels, ids)
    return np.where(keep[labels], labels, 0)


def _foreground(smooth: np.ndarray, noise: float) -> np.ndarray | None:
    """Where a whole-cell stain is, generously: above a share of the typical signal."""
    low = np.percentile(smooth, 1)
    if np.ptp(smooth) <= _SIGNIFICANT * noise:
        return None
    root = np.sqrt(np.clip(smooth - low, 0, None))
    sure = root > filters.threshold_otsu(root)
    dark, bright = np.median(smooth[~sure]), np.median(smooth[sure])
    if bright - dark <= _SIGNIFICANT * noise:
        return None
    return ndimage.binary_opening(smooth > dark + 0.15 * (bright - dark))


def _with_lonely(nuclei: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The nuclei, and as further seeds the parts of the mask that hold none."""
    seeds = nuclei.astype(np.int32)
    areas = np.bincount(seeds.ravel())[1:]
    typical = np.median(areas[areas > 0]) if areas.any() else 0
    pieces, _ = components(ndimage.binary_opening(mask, iterations=2))
    sizes = np.bincount(pieces.ravel())
    sizes[np.unique(pieces[seeds > 0])] = 0
    sizes[0] = 0
    lonely = sizes > 0.5 * typical
    ids = np.cumsum(lonely) * lonely
    return np.where(ids[pieces] > 0, ids[pieces] + seeds.max(), seeds).astype(np.int32)


def _seeds_of_cells(level: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Middles of cells that no nucleus tells of: between dark lines, and in waists of the mask."""
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    sigma: Any = 2.5
    hessian = feature.hessian_matrix(level, sigma, order="rc", use_gaussian_derivatives=False)
    dark = np.clip(feature.hessian_matrix_eigvals(hessian)[0], 0, None)
    lines = mask & (dark > filters.threshold_otsu(dark[mask]))
    distance = _depth(mask & ~lines)
    radius = float(np.percentile(distance[distance > 0], 95)) if distance.any() else 0.0
    distance = ndimage.gaussian_filter(distance, 0.15 * radius).astype(np.float32)
    return label_instances(distance, mask & ~lines, h=0.1 * radius, min_size=int(0.5 * radius**2))
