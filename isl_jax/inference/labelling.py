"""Maps of any size to labels: whole where memory allows, in stitched blocks where it does not."""

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from skimage import measure

from isl_jax.inference.info import PostProcessing
from isl_jax.inference.large import Scratch, release
from isl_jax.instances.watershed import label_batch, label_instances

# Blocks of large images: each is labelled with `MARGIN` pixels around it.
BLOCK = 2048
MARGIN = 384
_BAND_PIXELS = 1 << 23
_WORKERS = 2


def label_maps(
    probability: np.ndarray,
    distance: np.ndarray | None = None,
    *,
    options: PostProcessing | None = None,
    scratch: Scratch | None = None,
    block: int = BLOCK,
    margin: int = MARGIN,
) -> np.ndarray:
    """Labels int32 `[H, W]`, 0 is background, of a probability map and perhaps a distance map.

    With `distance` (float32, map units) they are the instances of `label_instances` at marker
    contrast `options.h`; without, the 8-connected components of the foreground, touching nuclei
    staying one object. Maps that are large for `scratch` are worked on in bands and blocks.
    Components are the same as of the whole image, ids included. Instances are labelled in blocks
    of `block` pixels that see `margin` pixels more at each side; every object is taken whole from
    the block that holds its first pixel, so objects smaller than `margin` are those of the whole
    image (ids go block by block). Warns when objects are larger. Raises ValueError without an h.
    """
    options, scratch = options or PostProcessing(), scratch or Scratch()
    large = scratch.is_large(probability.shape)
    if distance is None:
        return (_banded_components if large else _components)(probability, options, scratch)
    if options.h is None:
        raise ValueError("no marker contrast h is known for this model: give one")
    settings = dataclasses.asdict(options)
    threshold = settings.pop("threshold")
    if not large:
        return label_instances(distance, probability > threshold, **settings)
    return _stitched(probability, distance, threshold, settings, scratch, block, margin)


def _components(probability: np.ndarray, options: PostProcessing, _: Scratch) -> np.ndarray:
    mask = probability > options.threshold
    if options.fill_holes:
        mask = ndimage.binary_fill_holes(mask)
    labels = np.asarray(measure.label(mask, connectivity=2), np.int32)
    if options.min_size > 1:
        labels = _without_small(np.bincount(labels.ravel()), options.min_size)[labels]
    return labels


def _without_small(sizes: np.ndarray, min_size: int) -> np.ndarray:
    """Old id → new id, 0 for objects of fewer pixels."""
    kept = sizes >= min_size
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)


def _bands(shape: tuple[int, ...]) -> Iterator[slice]:
    rows = max(1, _BAND_PIXELS // shape[1])
    return (slice(top, min(top + rows, shape[0])) for top in range(0, shape[0], rows))


def _banded_components(
    probability: np.ndarray, options: PostProcessing, scratch: Scratch
) -> np.ndarray:
    def foreground(rows: slice) -> np.ndarray:
        mask = np.asarray(probability[rows]) > options.threshold
        release(probability)
        return mask

    if not options.fill_holes:
        labels, final, sizes = _label_in_bands(foreground, probability.shape, 2, scratch)
    else:
        # A hole is a 4-connected component of the background that does not touch the border.
        outside, merged, _ = _label_in_bands(
            lambda rows: ~foreground(rows), probability.shape, 1, scratch
        )
        edges = (outside[0], outside[-1], outside[:, 0], outside[:, -1])
        open_ids = np.unique(np.concatenate([merged[np.asarray(edge)] for edge in edges]))
        is_hole = ~np.isin(merged, [0, *open_ids])
        labels, final, sizes = _label_in_bands(
            lambda rows: foreground(rows) | is_hole[outside[rows]], probability.shape, 2, scratch
        )
    if options.min_size > 1:
        final = _without_small(sizes, options.min_size)[final]
    for rows in _bands(labels.shape):
        labels[rows] = final[labels[rows]]
        release(labels)
    return labels


def _label_in_bands(
    mask_of: Callable[[slice], np.ndarray],
    shape: tuple[int, ...],
    connectivity: int,
    scratch: Scratch,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Components: provisional labels, provisional → final id in raster order, sizes by final id."""
    labels = scratch.empty(shape, np.int32)
    pairs, sizes, count = [], [np.zeros(1, np.int64)], 0
    above: np.ndarray | None = None
    for rows in _bands(shape):
        band = np.asarray(measure.label(mask_of(rows), connectivity=connectivity), np.int32)
        found = int(band.max(initial=0))
        sizes.append(np.bincount(band.ravel(), minlength=found + 1)[1:])
        band[band > 0] += count
        count += found
        if above is not None:
            pairs.append(_touching(above, band[0], connectivity))
        above = band[-1].copy()
        labels[rows] = band
        release(labels)
    joined = np.concatenate([*pairs, np.zeros((0, 2), np.int64)])
    graph = sparse.coo_matrix(
        (np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), shape=(count + 1, count + 1)
    )
    # Numbered by their smallest member, that is, by their first pixel; 0 is joined to nothing.
    _, final = csgraph.connected_components(graph, directed=False)
    return labels, final.astype(np.int32), np.bincount(final, np.concatenate(sizes)).astype(int)


def _touching(above: np.ndarray, below: np.ndarray, connectivity: int) -> np.ndarray:
    """Pairs of ids that meet across two rows."""
    width = above.size
    pairs = []
    for shift in (-1, 0, 1) if connectivity == 2 else (0,):
        upper = above[max(0, -shift) : width - max(0, shift)]
        lower = below[max(0, shift) : width - max(0, -shift)]
        meet = (upper > 0) & (lower > 0)
        pairs.append(np.stack([upper[meet], lower[meet]], axis=1))
    return np.unique(np.concatenate(pairs), axis=0).astype(np.int64)


def _stitched(
    probability: np.ndarray,
    distance: np.ndarray,
    threshold: float,
    settings: dict[str, Any],
    scratch: Scratch,
    block: int,
    margin: int,
) -> np.ndarray:
    height, width = probability.shape
    cores = list(itertools.product(range(0, height, block), range(0, width, block)))

    def windows(image: np.ndarray) -> Iterator[np.ndarray]:
        for top, left in cores:
            # A copy: the map itself does not stay in memory.
            yield np.array(image[_window(top, left, block, margin)])
            release(image)

    labels = scratch.empty((height, width), np.int32)
    count = num_cut = 0
    masks = (window > threshold for window in windows(probability))
    results = label_batch(windows(distance), masks, num_workers=_WORKERS, **settings)
    for (top, left), found in zip(cores, results, strict=True):
        window = _window(top, left, block, margin)
        core = (top - window[0].start, left - window[1].start)
        new_id, num_owned = _owned(found, core, block, count)
        count += num_owned
        new = new_id[found]
        ends = [(new[-1], window[0].stop < height), (new[:, -1], window[1].stop < width)]
        cut_off = [end[end > 0] for end, goes_on in ends if goes_on]
        num_cut += len(np.unique(np.concatenate(cut_off))) if cut_off else 0
        region = labels[window]
        np.copyto(region, new, where=(new > 0) & (region == 0))
        release(labels)
    if num_cut:
        warnings.warn(
            f"{num_cut} objects reach more than {margin} pixels beyond their block and were cut "
            "there; choose a wider block margin",
            stacklevel=3,
        )
    return labels


def _window(top: int, left: int, block: int, margin: int) -> tuple[slice, slice]:
    return (
        slice(max(0, top - margin), top + block + margin),
        slice(max(0, left - margin), left + block + margin),
    )


def _owned(
    found: np.ndarray, core: tuple[int, int], block: int, count: int
) -> tuple[np.ndarray, int]:
    """Ids of a window → ids from `count` + 1 on for objects whose first pixel is in the core."""
    first = np.zeros(int(found.max(initial=0)) + 1, np.int64)
    flat = found.ravel()
    # Written from the last pixel to the first: the first one stays.
    first[flat[::-1]] = np.arange(flat.size - 1, -1, -1)
    row, column = np.divmod(first, found.shape[1])
    inside = (
        (row >= core[0])
        & (row < core[0] + block)
        & (column >= core[1])
        & (column < core[1] + block)
    )
    inside[0] = False
    new_id = np.where(inside, np.cumsum(inside) + count, 0).astype(np.int32)
    return new_id, int(inside.sum())
