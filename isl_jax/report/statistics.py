"""Numbers that compare runs: spread, intervals, paired tests, gains, annotations saved.

Pure functions of numpy arrays. Scores are per image; NaN marks an image that has none (its run
failed) and is left out.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from isl_jax.metrics import defined


@dataclasses.dataclass(frozen=True)
class Interval:
    """Confidence interval; both ends NaN when there is nothing to estimate it from."""

    low: float
    high: float


def relative_gain(score: float, baseline: float) -> float:
    """Return (score − baseline) / baseline, the paper's "+31.3 %" as 0.313; NaN over 0."""
    return (score - baseline) / baseline if baseline else math.nan


def bootstrap_interval(
    values: ArrayLike, *, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean of `values` `[images]`, images drawn anew.

    Give the mean over seeds of each image, or for a paired comparison the differences. Fewer than
    two defined images give NaN.
    """
    known = defined(values)
    if known.size < 2:
        return Interval(math.nan, math.nan)
    rng = np.random.default_rng(seed)
    # Counts of each image in a resample: one matrix product instead of a gather.
    counts = rng.multinomial(known.size, np.full(known.size, 1 / known.size), size=num_resamples)
    means = counts @ known / known.size
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def crossed_interval(
    values: ArrayLike, *, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean of `values` `[images, seeds]`, both drawn anew.

    A run of one seed is scored on all images: what is particular to the run goes through all of
    them, so that seeds are drawn for all images together. Drawn within each image, runs would
    average out and the interval be too narrow. NaN marks what is missing. Fewer than two images
    give NaN; with one seed it is that of `bootstrap_interval`.
    """
    grid = np.asarray(values, np.float64)
    grid = grid[:, ~np.isnan(grid).all(0)][~np.isnan(grid).all(1)]
    if len(grid) < 2:
        return Interval(math.nan, math.nan)
    rng, (num_images, num_seeds) = np.random.default_rng(seed), grid.shape
    images, seeds = (
        rng.multinomial(number, np.full(number, 1 / number), size=num_resamples)
        for number in (num_images, num_seeds)
    )
    known = ~np.isnan(grid)
    total = ((images @ np.where(known, grid, 0)) * seeds).sum(1)
    count = ((images @ known) * seeds).sum(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(total[count > 0] / count[count > 0], [tail, 1 - tail])
    return Interval(float(low), float(high))


def hierarchical_interval(
    values: ArrayLike,
    sweeps: Sequence[Any],
    sets: Sequence[Any],
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> tuple[Interval, float]:
    """Bootstrap interval and two-sided p of the mean of `values` `[units, runs]`, by levels.

    A unit is what is independent (a field, or fields of the same cells), of the data set `sets`
    `[units]`; a run is of the sweep `sweeps` `[runs]`, which has its own annotated images and
    pretext, and one of its seeds. Units are drawn anew within each set, sweeps within each set, and
    seeds within each sweep; runs are drawn for all units together, as in `crossed_interval`. The
    mean is that over units of each unit's mean over runs; NaN marks what a run was not tested on. p
    is the share of resamples on the other side of 0, doubled; with few units it is too small, and
    `paired_test` over them is the one to trust. Fewer than two units give NaN.
    """
    grid = np.asarray(values, np.float64)
    known = ~np.isnan(grid)
    units, runs = np.flatnonzero(known.any(1)), np.flatnonzero(known.any(0))
    if len(units) < 2:
        return Interval(math.nan, math.nan), math.nan
    grid, known = grid[units][:, runs], known[units][:, runs]
    of_unit, of_run = [sets[int(k)] for k in units], [sweeps[int(k)] for k in runs]
    # A run is of the set of the units that it was tested on.
    set_of_run = [of_unit[int(np.argmax(column))] for column in known.T]
    rng = np.random.default_rng(seed)
    unit_weights = _drawn(rng, of_unit, num_resamples)
    run_weights = _drawn(rng, of_run, num_resamples)
    for name in dict.fromkeys(set_of_run):
        there = dict.fromkeys(s for s, of in zip(of_run, set_of_run, strict=True) if of == name)
        drawn = _drawn(rng, [name] * len(there), num_resamples)
        for column, sweep in enumerate(there):
            members = [k for k, s in enumerate(of_run) if s == sweep]
            run_weights[:, members] *= drawn[:, [column]] / len(members)
    weight = run_weights @ known.T
    means = run_weights @ np.where(known, grid, 0).T / np.where(weight > 0, weight, 1)
    count = (unit_weights * (weight > 0)).sum(1)
    found = (unit_weights * means).sum(1)[count > 0] / count[count > 0]
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    beyond = min((found <= 0).sum(), (found >= 0).sum())
    return Interval(float(low), float(high)), min(1.0, 2 * (1 + beyond) / (1 + len(found)))


def _drawn(rng: np.random.Generator, groups: Sequence[Any], num_resamples: int) -> np.ndarray:
    """How often each item is drawn `[resamples, items]`, as many within each group as it has."""
    counts = np.zeros((num_resamples, len(groups)))
    for name in dict.fromkeys(groups):
        members = [k for k, group in enumerate(groups) if group == name]
        shares = np.full(len(members), 1 / len(members))
        counts[:, members] = rng.multinomial(len(members), shares, size=num_resamples)
    return counts


def paired_test(scores: ArrayLike, baseline: ArrayLike) -> float:
    """Two-sided p of the Wilcoxon signed-rank test on paired `scores` and `baseline` `[images]`.

    1 when no pair differs, NaN without a pair. With k differing images no p can be below 2^(1−k).
    """
    scores, baseline = np.asarray(scores, np.float64), np.asarray(baseline, np.float64)
    if scores.shape != baseline.shape:
        raise ValueError(f"paired scores of {scores.shape} and {baseline.shape} images")
    difference = defined(scores - baseline)
    if not difference.size:
        return math.nan
    difference = difference[difference != 0]
    if not difference.size:
        return 1.0
    # Ranks must not hang on the last bit of a difference of two float64 scores.
    result: Any = stats.wilcoxon(np.round(difference, 12))
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of `p_values`; NaN stays NaN and does not count as a test."""
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(p.shape, np.nan)
    order = [i for i in np.argsort(p) if not np.isnan(p[i])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted.tolist()


def annotations_needed(n: Sequence[int], scores: Sequence[float], target: float) -> float | None:
    """Annotated images at which a learning curve first reaches `target`.

    `scores` belong to the increasing numbers `n`; between them the curve is taken as straight over
    log N. None when it never gets there within the range measured.
    """
    points = [(m, s) for m, s in zip(n, scores, strict=True) if not math.isnan(s)]
    for i, (m, score) in enumerate(points):
        if score < target:
            continue
        if i == 0:
            return float(m)
        before, low = points[i - 1]
        share = (target - low) / (score - low)
        return float(before * (m / before) ** share)
    return None
