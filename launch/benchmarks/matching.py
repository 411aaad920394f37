"""Speed of all matching scores at ten thresholds from two label images.

With --peer also stardist's `matching` and cellpose's `average_precision` and AJI, where they are
installed, and an overlap table filled pixel by pixel in Python, as the paper's code does.
"""

from collections.abc import Callable

import numpy as np

from isl_jax.instances.matching import THRESHOLDS, average_precision, match
from isl_jax.launch.benchmarks.instances import alternating, cells


def main(*, peer: bool) -> dict:
    """Print the table of processor times, medians of alternating runs; returns the figures."""
    figures = {}
    for size, count in ((512, 20), (1024, 52), (2160, 300), (2160, 700)):
        true = cells(size, count)
        pred = _perturbed(true)
        jobs: dict[str, Callable[[], object]] = {
            "ours, every score": lambda true=true, pred=pred: match(true, pred)
        }
        if peer:
            jobs |= _peers(true, pred)
        row = alternating(jobs, repeats=7)
        if peer:
            row |= alternating({"pixel loop": lambda t=true, p=pred: _pixel_loop(t, p)}, repeats=1)
        figures[f"{size}², {count} objects"] = row
        print(f"{size}², {count} objects:")
        ours = row["ours, every score"]
        for name, value in row.items():
            print(f"    {name:<34}{value:>10.1f} CPU ms{value / ours:>8.1f}×", flush=True)
    return figures


def _perturbed(true: np.ndarray) -> np.ndarray:
    """A prediction with shifted, lost and merged objects."""
    pred = np.roll(true, (3, -4), axis=(0, 1))
    return np.where(pred % 11 == 0, 0, np.where(pred % 7 == 0, pred - 1, pred))


def _peers(true: np.ndarray, pred: np.ndarray) -> dict[str, Callable[[], object]]:
    jobs: dict[str, Callable[[], object]] = {}
    try:
        from stardist.matching import matching  # pyright: ignore[reportMissingImports]

        jobs["stardist matching"] = lambda: matching(true, pred, thresh=THRESHOLDS)
    except ImportError as error:
        print(f"stardist is left out: {error}")
    try:
        from cellpose import metrics  # pyright: ignore[reportMissingImports]

        found = metrics.average_precision([true], [pred], threshold=list(THRESHOLDS))[0][0]
        error = np.abs(found - average_precision(true, pred)).max()
        print(f"AP differs from cellpose's by at most {error:.1e}")
        jobs["cellpose average_precision"] = lambda: metrics.average_precision(
            [true], [pred], threshold=list(THRESHOLDS)
        )
        jobs["cellpose average_precision and AJI"] = lambda: (
            metrics.average_precision([true], [pred], threshold=list(THRESHOLDS)),
            metrics.aggregated_jaccard_index([true], [pred]),
        )
    except ImportError as error:
        print(f"cellpose is left out: {error}")
    return jobs


def _pixel_loop(true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """IoU of every pair from an overlap table counted one pixel at a time."""
    overlap = np.zeros((int(true.max()) + 1, int(pred.max()) + 1))
    for y in range(true.shape[0]):
        for x in range(true.shape[1]):
            overlap[true[y, x], pred[y, x]] += 1
    union = overlap.sum(axis=0, keepdims=True) + overlap.sum(axis=1, keepdims=True) - overlap
    return overlap / np.maximum(union, 1)
