"""Statistics of a study, against brute force and scipy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from isl_jax.report import statistics


@pytest.mark.parametrize(
    ("score", "baseline", "percent"), [(0.84, 0.64, 31.25), (0.33, 0.17, 94.12), (0.5, 0.5, 0.0)]
)
def test_relative_gain_gives_the_percentages_of_the_paper(score, baseline, percent):
    assert 100 * statistics.relative_gain(score, baseline) == pytest.approx(percent, abs=0.005)


def test_relative_gain_over_nothing_is_undefined():
    assert math.isnan(statistics.relative_gain(0.3, 0.0))


def test_bootstrap_agrees_with_every_resample_of_a_small_sample():
    values = np.array([0.1, 0.25, 0.4, 0.9])
    means = [np.mean(draw) for draw in itertools.product(values, repeat=4)]
    interval = statistics.bootstrap_interval(values, num_resamples=40_000)
    assert interval.low == pytest.approx(np.quantile(means, 0.025), abs=0.02)
    assert interval.high == pytest.approx(np.quantile(means, 0.975), abs=0.02)


def test_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(3).beta(2, 3, size=60)
    oracle = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    interval = statistics.bootstrap_interval(values)
    assert interval.low == pytest.approx(oracle.low, abs=3e-3)
    assert interval.high == pytest.approx(oracle.high, abs=3e-3)


def test_bootstrap_is_reproducible_and_needs_two_images():
    assert statistics.bootstrap_interval([1, 2, 3]) == statistics.bootstrap_interval([1, 2, 3])
    assert math.isnan(statistics.bootstrap_interval([0.5]).low)


@pytest.mark.parametrize("seed", range(5))
def test_wilcoxon_agrees_with_every_assignment_of_signs(seed):
    rng = np.random.default_rng(seed)
    baseline = rng.uniform(size=8)
    scores = baseline + rng.normal(0.05, 0.1, size=8)
    difference = scores - baseline
    ranks = stats.rankdata(np.abs(difference))
    centre = ranks.sum() / 2
    observed = abs(ranks[difference > 0].sum() - centre)
    extreme = [
        abs(np.dot(signs, ranks) - centre) >= observed - 1e-9
        for signs in itertools.product([0, 1], repeat=8)
    ]
    assert statistics.paired_test(scores, baseline) == pytest.approx(np.mean(extreme))


def test_wilcoxon_of_equal_and_of_missing_scores():
    assert statistics.paired_test([0.1, 0.2], [0.1, 0.2]) == 1.0
    assert math.isnan(statistics.paired_test([math.nan], [0.1]))
    assert statistics.paired_test([0.3, math.nan], [0.1, 0.2]) == 1.0  # one pair: 2^(1−1)
    with pytest.raises(ValueError, match="paired scores"):
        statistics.paired_test([0.1, 0.2], [0.1])


def test_holm_by_its_definition():
    p = [0.04, 0.01, math.nan, 0.03]
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1, then made monotone.
    assert statistics.holm(p) == pytest.approx([0.06, 0.03, math.nan, 0.06], nan_ok=True)
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p):
    """An hypothesis falls when Bonferroni rejects every set of hypotheses that holds it."""
    indices = range(len(p))
    sets = [s for size in indices for s in itertools.combinations(indices, size + 1)]
    closed = [max(min(1, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in indices]
    assert statistics.holm(p) == pytest.approx(closed)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=40))
def test_wilcoxon_does_not_care_which_arm_comes_first_nor_for_the_scale(pairs):
    scores, baseline = np.array(pairs).T / 100
    p = statistics.paired_test(scores, baseline)
    assert 0 < p <= 1
    assert statistics.paired_test(baseline, scores) == pytest.approx(p)
    assert statistics.paired_test(scores / 4, baseline / 4) == pytest.approx(p)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_bootstrap_interval_lies_within_the_values_and_moves_with_them(values):
    interval = statistics.bootstrap_interval(values, num_resamples=200)
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
    moved = statistics.bootstrap_interval(np.array(values) + 3, num_resamples=200)
    assert (moved.low, moved.high) == pytest.approx((interval.low + 3, interval.high + 3))


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 10_000), min_size=2, max_size=6, unique=True).map(sorted),
    st.lists(st.floats(0.01, 0.2), min_size=6, max_size=6),
    st.floats(0, 1),
)
def test_annotations_needed_inverts_a_rising_curve(n, rises, share):
    scores = np.cumsum(rises[: len(n)])
    target = scores[0] + share * (scores[-1] - scores[0])
    expected = np.exp(np.interp(target, scores, np.log(n)))
    needed = statistics.annotations_needed(n, scores.tolist(), float(target))
    if needed is None:  # the last bit of the target may lie beyond the last score
        assert target >= scores[-1]
    else:
        assert needed == pytest.approx(expected)


def test_annotations_needed_interpolates_over_log_n():
    n, scores = [1, 10, 100], [0.2, 0.4, 0.6]
    assert statistics.annotations_needed(n, scores, 0.3) == pytest.approx(10**0.5)
    assert statistics.annotations_needed(n, scores, 0.6) == pytest.approx(100)
    assert statistics.annotations_needed(n, scores, 0.1) == 1.0
    assert statistics.annotations_needed(n, scores, 0.7) is None
    assert statistics.annotations_needed(n, [0.2, math.nan, 0.6], 0.4) == pytest.approx(10)


def test_interval_over_fields_and_seeds_knows_that_runs_differ():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(12, 4))
    fields_alone = statistics.crossed_interval(0.1 + 0.01 * noise)
    runs = statistics.crossed_interval(0.1 + 0.01 * noise + np.array([-0.3, 0.3, -0.2, 0.2]))
    assert 0 < fields_alone.low < fields_alone.high
    assert runs.low < 0 < runs.high  # though every field is above 0 over its seeds
    one = noise[:, :1]
    alone, single = statistics.crossed_interval(one), statistics.bootstrap_interval(one[:, 0])
    assert (alone.low, alone.high) == pytest.approx((single.low, single.high), abs=0.05)


def test_interval_over_fields_and_seeds_leaves_out_what_is_missing():
    values = np.array([[0.2, np.nan, 0.4], [0.3, np.nan, np.nan], [np.nan] * 3, [0.1, np.nan, 0.2]])
    found = statistics.crossed_interval(values)
    assert 0.1 <= found.low < found.high <= 0.4
    for nothing in (values[:1], values[2:3], np.zeros((0, 0)), np.full((3, 2), np.nan)):
        assert np.isnan(statistics.crossed_interval(nothing).low)


def test_hierarchical_interval_is_the_bootstrap_of_the_level_that_varies():
    rng = np.random.default_rng(1)
    effects = rng.normal(0.1, 1, 12)
    expected = statistics.bootstrap_interval(effects)
    units = np.repeat(effects[:, None], 3, 1)  # runs agree: units alone vary
    runs = np.repeat(effects[None], 5, 0)  # units agree: sweeps, or seeds of one sweep, vary
    for values, sweeps, sets in (
        (units, ["a", "a", "b"], [0] * 12),
        (runs, range(12), [0] * 5),
        (runs, ["a"] * 12, [0] * 5),
    ):
        found, _ = statistics.hierarchical_interval(values, list(sweeps), sets)
        assert found.low == pytest.approx(expected.low, abs=0.03)
        assert found.high == pytest.approx(expected.high, abs=0.03)


def test_hierarchical_interval_with_every_level():
    # Variance of a mean over 20 units, 10 sweeps and 2 seeds each, if all vary by themselves.
    rng = np.random.default_rng(0)
    covered, wide = 0, []
    for trial in range(60):
        unit, sweep, seed = rng.normal(0, 1, 20), rng.normal(0, 1, 10), rng.normal(0, 1, 20)
        values = unit[:, None] + np.repeat(sweep, 2) + seed + rng.normal(0, 0.1, (20, 20))
        found, _ = statistics.hierarchical_interval(
            values, list(np.arange(20) // 2), [0] * 20, num_resamples=400, seed=trial
        )
        covered += found.low <= 0 <= found.high
        wide.append(found.high - found.low)
    expected = 2 * 1.96 * np.sqrt(1 / 20 + 1 / 10 + 1 / 20)
    assert np.mean(wide) == pytest.approx(expected, rel=0.15)
    assert covered >= 48  # 95 % of 60, less what percentiles of small samples lose


def test_sets_are_drawn_by_themselves_and_a_clear_difference_has_a_small_p():
    # Two sets that differ much, each without spread: nothing varies, so nothing is uncertain.
    values = np.full((8, 4), np.nan)
    values[:4, :2], values[4:, 2:] = 0.1, 0.9
    interval, p = statistics.hierarchical_interval(values, list("aabb"), [0] * 4 + [1] * 4)
    assert interval.low == pytest.approx(0.5) and interval.high == pytest.approx(0.5)
    assert p == pytest.approx(2 / 10_001)
    assert statistics.paired_test(np.full(8, 0.5), np.zeros(8)) == pytest.approx(2**-7)
    nothing, p = statistics.hierarchical_interval(values[:1], list("aabb"), [0])
    assert math.isnan(nothing.low) and math.isnan(p)
