"""Speed of distance map → instances, and of labels → distance map, on one thread and on all cores.

Beside it with --peer: scikit-image's own h-maxima and watershed, and the chain of the paper's code
(a reconstruction, then h-maxima of it, then the watershed). Every result is compared with the
definition. Real masks are added where ISL_JAX_DATA names the folder of the data sets.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import tifffile
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.measure import label
from skimage.morphology import h_maxima, local_maxima, reconstruction
from skimage.segmentation import relabel_sequential, watershed

from isl_jax.data.targets import distance_map
from isl_jax.instances.watershed import label_batch, label_instances

_H = 30.0  # where the chain of the paper's code selects the same markers
_REPEATS = 3


def main(*, peer: bool) -> dict:
    """Print the table of processor times, medians of alternating runs; returns the figures."""
    first, again = _start_up()
    print(
        f"first call in a process: {again:.1f} s; the very first one, which compiles: {first:.1f} s"
    )
    figures: dict = {"start_up_s": again, "compile_s": first, "instances": {}}
    print(f"\n{'instances, one thread, CPU ms':<38}{'found':>6}{'ours':>8}", end="")
    print(f"{'skimage':>9}{'chain':>9}  ratios        equal" if peer else "")
    for name, (distance, mask) in _maps().items():
        figures["instances"][name] = _compare(name, distance, mask, peer=peer)
    figures["batch"] = _batch()
    figures["distance_map"] = _distance_maps()
    return figures


def cells(size: int, count: int, *, seed: int = 0) -> np.ndarray:
    """Labels [size, size] of about `count` cells with wavy outlines, many of them touching."""
    rng = np.random.default_rng(seed)
    centres = rng.random((count, 2)) * size
    waves = [ndimage.gaussian_filter(rng.standard_normal((size, size)), 12) for _ in range(2)]
    points = np.indices((size, size), float) + 150 * np.stack(waves)
    distance, nearest = KDTree(centres).query(points.reshape(2, -1).T)
    labels = np.where(distance < 0.55 * size / np.sqrt(count), nearest + 1, 0)
    return labels.reshape(size, size).astype(np.int32)


def alternating(
    jobs: dict[str, Callable[[], object]],
    repeats: int = _REPEATS,
    *,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Median time in milliseconds of each job; the jobs take turns.

    Processor time by default: for work on one thread it is the time on an idle machine, or near.
    """
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = clock()
            job()
            times[name].append(1e3 * (clock() - start))
    return {name: median(values) for name, values in times.items()}


def _as_predicted(labels: np.ndarray) -> np.ndarray:
    """A normalised distance map as a network would give it: smoothed, and with smooth errors."""
    rng = np.random.default_rng(1)
    noise = ndimage.gaussian_filter(rng.standard_normal(labels.shape), 3) * 50
    return (ndimage.gaussian_filter(distance_map(labels, peaks="all"), 2) + noise).astype(
        np.float32
    )


def _maps() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    maps = {}
    for size, count in ((512, 20), (1024, 52), (2160, 300), (2160, 700)):
        labels = cells(size, count)
        maps[f"{size}², {count} cells, as predicted"] = _as_predicted(labels), labels > 0
    labels = cells(2160, 300)
    maps["2160², 300 cells, true map"] = distance_map(labels, peaks="all"), labels > 0
    rng = np.random.default_rng(2)
    noise = ndimage.gaussian_filter(rng.standard_normal((1024, 1024)), 5).astype(np.float32) * 1000
    maps["1024², smooth noise"] = noise, noise > 0
    root = Path(os.environ.get("ISL_JAX_DATA", ""))
    for field in ("phase_hela_and_others/hela1_cell", "phase_t98g/set1_cell"):
        path = root / f"{field}_masks.tif"
        if "ISL_JAX_DATA" in os.environ and path.is_file():
            labels = tifffile.imread(path)
            maps[f"{path.stem}, true map"] = distance_map(labels, peaks="all"), labels > 0
    return maps


def _compare(name: str, distance: np.ndarray, mask: np.ndarray, *, peer: bool) -> dict:
    jobs: dict[str, Callable[[], object]] = {"ours": lambda: label_instances(distance, mask, h=_H)}
    if peer:
        jobs["skimage"] = lambda: _skimage(distance, mask)
        jobs["chain"] = lambda: chain(distance, mask)
    row: dict = alternating(jobs)
    labels = label_instances(distance, mask, h=_H)
    row["found"] = int(labels.max())
    print(f"{name:<38}{row['found']:>6}{row['ours']:>8.0f}", end="")
    if peer:
        maxima = local_maxima(reconstruction(distance - _H, distance), connectivity=2)
        expected = _flood(distance, np.asarray(maxima), mask)
        row["equal"] = bool(np.array_equal(labels, expected))
        print(f"{row['skimage']:>9.0f}{row['chain']:>9.0f}", end="")
        print(f"{row['skimage'] / row['ours']:>6.1f}×{row['chain'] / row['ours']:>6.1f}×", end="")
        print("   yes" if row["equal"] else "   NO", end="")
    print(flush=True)
    return row


def _flood(distance: np.ndarray, maxima: np.ndarray, mask: np.ndarray) -> np.ndarray:
    markers = label(maxima, connectivity=2)
    return relabel_sequential(watershed(-distance, markers, mask=mask))[0]


def _skimage(distance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return _flood(distance, h_maxima(distance, _H), mask)


def chain(distance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The post-processing of the paper's code, at the h of this suite."""
    return _flood(distance, h_maxima(reconstruction(distance - 10, distance), _H - 10), mask)


def _batch() -> dict:
    labels = [cells(2160, 300, seed=seed) for seed in range(2)]
    distances = [_as_predicted(image) for image in labels] * 3
    masks = [image > 0 for image in labels] * 3
    cores = os.cpu_count() or 1
    row = alternating(
        {
            f"{n} threads": lambda n=n: list(label_batch(distances, masks, h=_H, num_workers=n))
            for n in (1, cores)
        },
        clock=time.perf_counter,
    )
    one, every = row.values()
    print(
        f"\nbatch of {len(masks)} × 2160², 300 cells: one thread {one:.0f} ms, {cores} threads ",
        end="",
    )
    print(f"{every:.0f} ms, {one / every:.2f}× more", flush=True)
    return row


def _distance_maps() -> dict:
    labels = cells(2160, 700)
    row = alternating(
        {
            "ours": lambda: distance_map(labels, "pixels", "all"),
            "ours normalised": lambda: distance_map(labels, peaks="all"),
            "ours, one peak a cell": lambda: distance_map(labels),
            "scipy per object": lambda: _scipy_distance(labels),
        },
        repeats=7,
    )
    row["error"] = float(
        np.abs(distance_map(labels, "pixels", "all") - _scipy_distance(labels)).max()
    )
    print("distance map, 2160², 700 cells (CPU ms): ", end="")
    print(", ".join(f"{name} {value:.3g}" for name, value in row.items()), flush=True)
    return row


def _scipy_distance(labels: np.ndarray) -> np.ndarray:
    """One object after the other on its bounding box, one pixel wider where the image goes on."""
    distance = np.zeros(labels.shape, np.float32)
    for index, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        wider = tuple(
            slice(max(side.start - 1, 0), min(side.stop + 1, size))
            for side, size in zip(box, labels.shape, strict=True)
        )
        inside = labels[wider] == index
        distance[wider][inside] = np.asarray(ndimage.distance_transform_edt(inside))[inside]
    return distance


def _start_up() -> tuple[float, float]:
    """Seconds from start to labels in a new process: without and with compiled kernels on disk."""
    script = (
        "import numpy as np; from isl_jax.instances.watershed import label_instances;"
        "label_instances(np.eye(64, dtype=np.float32), np.eye(64) > 0, h=0.5)"
    )
    with tempfile.TemporaryDirectory() as cache:
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
            subprocess.run([sys.executable, "-c", script], check=True, env=environment)
            seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1]
