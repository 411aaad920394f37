"""Distance map and semantic mask to instance labels: h-maxima markers, then watershed.

The definition is scikit-image's, and the labels are equal to its, ties included:

    maxima = local_maxima(reconstruction(f - h, f), connectivity=2)
    labels = watershed(-f, label(maxima, connectivity=2), mask=semantic)
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np
from scipy import ndimage
from skimage.measure import label as connected_components

from isl_jax.instances.flooding import flood
from isl_jax.instances.reconstruction import levels_of, reconstruct, regional_maxima

# Marker contrast for normalised (0..255) distance maps that were not calibrated.
DEFAULT_H = 100.0


def label_instances(
    distance: np.ndarray,
    semantic: np.ndarray,
    *,
    h: float = 10.0,
    sigma: float = 0.0,
    keep_unmarked: bool = False,
    fill_holes: bool = False,
    min_size: int = 0,
) -> np.ndarray:
    """Instance labels: watershed of −f in the mask from the h-maxima of f (section 2.3).

    distance: f, float32 or float64 [H, W], higher towards cell centres, finite, in the units of
    h; half-precision maps are refused, since their rounding moves labels. semantic: [H, W], bool
    or integer (not 0 = foreground) or floating (a probability, foreground above 0.5). h ≥ 0:
    markers are the regional maxima of the reconstruction of f − h under f, 8-connected.
    `sigma`: that of a Gaussian that f is smoothed with before, in pixels (none beyond 4 σ).
    Foreground that no marker reaches stays background; with `keep_unmarked` each of its connected
    components is an instance. `fill_holes` gives an instance the background it encloses;
    `min_size` drops instances of fewer pixels. Returns int32 [H, W], ids 1..n in the order of the
    markers' first pixels, 0 = background. Raises ValueError on other input.
    """
    distance, mask = _checked(distance, semantic, h)
    if sigma:
        distance = ndimage.gaussian_filter(distance, sigma, mode="nearest")
    if distance.size == 0:
        return np.zeros(distance.shape, np.int32)
    width = distance.shape[1] + 2
    levels = _levels(distance)
    with np.errstate(over="ignore"):  # −inf is in order
        markers = _levels(distance - distance.dtype.type(h))
    reconstruct(markers, levels, width)
    labels, count = regional_maxima(markers, mask)
    if levels.dtype != np.int32:
        # Only the order counts, and ranks fit into the queue's 32 bits.
        levels = np.unique(levels, return_inverse=True)[1].astype(np.int32)
    flood(levels, labels, width)
    labels = np.maximum(labels.reshape(-1, width)[1:-1, 1:-1], 0)
    if keep_unmarked:
        rest = np.asarray(connected_components(mask & (labels == 0), connectivity=1))
        labels = np.where(rest > 0, rest + count, labels).astype(np.int32)
    if fill_holes:
        _fill_holes(labels)
    if min_size > 1:
        labels = _drop_small(labels, min_size)
    return labels


class InstancePool:
    """Label images in the background, while the device works on the next ones.

    Worker threads, not processes: the kernels release the interpreter lock, no map is copied, and
    nothing is forked beside a running accelerator. Use as a context manager.
    """

    def __init__(self, num_workers: int | None = None):
        self.num_workers = num_workers or os.cpu_count() or 1
        self._executor = ThreadPoolExecutor(self.num_workers, thread_name_prefix="instances")

    def submit(
        self, distance: np.ndarray, semantic: np.ndarray, **options: Any
    ) -> Future[np.ndarray]:
        """Start `label_instances(distance, semantic, **options)`; ask the result of the future."""
        return self._executor.submit(label_instances, distance, semantic, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown(cancel_futures=error[0] is not None)


def label_batch(
    distances: Iterable[np.ndarray],
    semantics: Iterable[np.ndarray],
    *,
    num_workers: int | None = None,
    **options: Any,
) -> Iterator[np.ndarray]:
    """`label_instances` of many images side by side, in order.

    distances, semantics: one [H, W] map and mask an image; taken a few images ahead of the results,
    so that a plate need not fit into memory. num_workers: threads, all cores by default. options:
    as `label_instances`.
    """
    with InstancePool(num_workers) as pool:
        pending: deque[Future[np.ndarray]] = deque()
        for distance, semantic in zip(distances, semantics, strict=True):
            pending.append(pool.submit(distance, semantic, **options))
            if len(pending) > 2 * pool.num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _checked(distance: np.ndarray, semantic: np.ndarray, h: float) -> tuple[np.ndarray, np.ndarray]:
    distance, semantic = np.asarray(distance), np.asarray(semantic)
    if np.issubdtype(distance.dtype, np.integer):
        distance = distance.astype(np.float32 if distance.dtype.itemsize <= 2 else np.float64)
    if distance.ndim != 2 or distance.dtype not in (np.float32, np.float64):
        raise ValueError(
            f"distance map is {distance.dtype} {list(distance.shape)}; expected float32 or float64 "
            "[H, W] (rounding it to half precision would move labels)"
        )
    if semantic.shape != distance.shape:
        raise ValueError(
            f"semantic mask is {list(semantic.shape)}, distance map {list(distance.shape)}; "
            "expected one shape"
        )
    if not 0 <= h < np.inf:
        raise ValueError(f"marker contrast h is {h}; expected a finite number ≥ 0")
    if not np.isfinite(distance).all():
        raise ValueError("distance map contains NaN or infinite values; expected finite ones")
    threshold = 0.5 if np.issubdtype(semantic.dtype, np.floating) else 0
    return distance, semantic > threshold if semantic.dtype != bool else semantic


def _levels(image: np.ndarray) -> np.ndarray:
    integers = np.int32 if image.dtype == np.float32 else np.int64
    # Adding 0 turns −0 into 0: equal values must be equal levels.
    return levels_of((image + image.dtype.type(0)).view(integers))


def _fill_holes(labels: np.ndarray) -> None:
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            window = labels[box]
            window[ndimage.binary_fill_holes(window == label) & (window == 0)] = label


def _drop_small(labels: np.ndarray, min_size: int) -> np.ndarray:
    sizes = np.bincount(labels.ravel())
    kept = sizes >= min_size
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]
