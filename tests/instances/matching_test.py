from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from isl_jax.instances.matching import (
    THRESHOLDS,
    average_precision,
    match,
    pool,
)

FIXTURE = Path(__file__).parent / "fixtures" / "matching.npz"
# Names of stardist 0.9.2 for the same quantities.
STARDIST = {
    "tp": "tp",
    "fp": "fp",
    "fn": "fn",
    "ap": "accuracy",
    "f1": "f1",
    "pq": "panoptic_quality",
    "mean_matched_iou": "mean_matched_score",
}


@pytest.fixture(scope="module")
def oracle():
    with np.load(FIXTURE) as stored:
        return dict(stored)


@pytest.mark.parametrize("k", range(11))
def test_scores_are_those_of_stardist_and_cellpose(oracle, k):
    found = match(oracle[f"true{k}"], oracle[f"pred{k}"], oracle["thresholds"])
    for ours, theirs in STARDIST.items():
        stored = oracle[f"stardist_{theirs}{k}"]
        np.testing.assert_allclose(getattr(found, ours), stored, rtol=0, atol=1e-12, err_msg=ours)
    # These two were returned in float32.
    for name, theirs in (("mean_true_iou", "stardist_mean_true_score"), ("ap", "cellpose_ap")):
        rounded = getattr(found, name).astype(np.float32)
        stored = np.ravel(oracle[f"{theirs}{k}"])
        np.testing.assert_allclose(rounded, stored, rtol=0, atol=1e-12, err_msg=theirs)
    assert found.aji_one_to_one == pytest.approx(oracle[f"cellpose_aji{k}"].item(), abs=1e-12)


def test_thresholds_are_those_of_the_paper(oracle):
    np.testing.assert_allclose(THRESHOLDS, oracle["thresholds"], rtol=0, atol=1e-15)


def brute_force(true, pred, threshold):
    """TP and total IoU by a Hungarian assignment on the whole table, objects one by one."""
    true_ids, pred_ids = np.unique(true[true > 0]), np.unique(pred[pred > 0])
    iou = np.zeros((len(true_ids), len(pred_ids)))
    for a, i in enumerate(true_ids):
        for b, j in enumerate(pred_ids):
            x, y = true == i, pred == j
            iou[a, b] = (x & y).sum() / (x | y).sum()
    gain = np.where(iou >= threshold, 1000 + iou, 0)
    rows, cols = linear_sum_assignment(-gain)
    chosen = gain[rows, cols] > 0
    return chosen.sum(), iou[rows, cols][chosen].sum()


def kumar(true, pred):
    """Algorithm 1 of Kumar et al. 2017, objects one by one; of equal best the lowest id."""
    intersection = union = 0
    used = set()
    for i in np.unique(true[true > 0]):
        x = true == i
        best, best_iou = None, 0
        for j in np.unique(pred[x & (pred > 0)]):
            y = pred == j
            if (iou := (x & y).sum() / (x | y).sum()) > best_iou:
                best, best_iou = j, iou
        y = pred == best if best is not None else np.zeros_like(x)
        used.add(best)
        intersection += (x & y).sum()
        union += (x | y).sum()
    union += sum((pred == j).sum() for j in np.unique(pred[pred > 0]) if j not in used)
    return intersection / union if union else 1.0


LABELS = st.integers(1, 4).flatmap(
    lambda block: hnp.arrays(np.uint8, (6, 6), elements=st.integers(0, 4)).map(
        lambda x: x.repeat(block, 0).repeat(block, 1)[:8, :8]
    )
)


@settings(max_examples=200, deadline=None)
@given(LABELS, LABELS, st.sampled_from([0.05, 0.2, 0.35, 0.5, 0.6, 0.9, 1.0]))
def test_assignment_is_one_to_one_and_the_best(true, pred, threshold):
    height, width = np.minimum(true.shape, pred.shape)
    true, pred = true[:height, :width], pred[:height, :width]
    found = match(true, pred, threshold)
    tp, iou_sum = brute_force(true, pred, threshold)
    assert found.tp == tp == len(found.pairs)
    assert found.iou_sum == pytest.approx(iou_sum, rel=1e-6)
    assert found.fn == len(found.missed) and found.fp == len(found.invented)
    for column in found.pairs.T:
        assert len(set(column.tolist())) == len(column)
    for (i, j), iou in zip(found.pairs, found.pair_iou, strict=True):
        x, y = true == i, pred == j
        assert iou == (x & y).sum() / (x | y).sum() >= threshold


@settings(max_examples=100, deadline=None)
@given(LABELS, LABELS)
def test_aji_is_that_of_kumar(true, pred):
    height, width = np.minimum(true.shape, pred.shape)
    true, pred = true[:height, :width], pred[:height, :width]
    assert match(true, pred).aji == pytest.approx(kumar(true, pred))


def test_the_two_aji_differ_where_one_prediction_covers_two_cells():
    true = np.zeros((4, 10), int)
    true[:, :5], true[:, 5:9] = 1, 2
    pred = (true > 0).astype(int)
    found = match(true, pred)
    assert found.aji == pytest.approx((20 + 16) / (36 + 36))
    assert found.aji_one_to_one == pytest.approx(20 / 36)


def test_nothing_to_find_and_nothing_found_is_perfect():
    found = match(np.zeros((4, 4), int), np.zeros((4, 4), int))
    for name in ("ap", "f1", "precision", "recall", "pq", "mean_matched_iou"):
        np.testing.assert_array_equal(getattr(found, name), np.ones(10))
    assert found.aji == found.aji_one_to_one == found.mean_ap == 1


@pytest.mark.parametrize("empty", ["true", "pred"])
def test_one_empty_image_scores_zero(empty):
    images = {"true": np.eye(4, dtype=int), "pred": np.eye(4, dtype=int)}
    images[empty] = np.zeros((4, 4), int)
    found = match(**images)
    for name in ("ap", "f1", "precision", "recall", "pq"):
        np.testing.assert_array_equal(getattr(found, name), np.zeros(10))
    assert found.aji == found.aji_one_to_one == 0


@pytest.mark.parametrize("dtype", [bool, "u1", "i1", "u2", "i4", "u4", "i8", "u8"])
def test_any_integer_dtype(dtype):
    true = np.kron(np.eye(4), np.ones((3, 3))).astype(dtype)
    np.testing.assert_array_equal(average_precision(true, true.astype("u8")), np.ones(10))


def test_ids_may_be_sparse_and_beyond_65535():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 30, (40, 40)).repeat(3, 0).repeat(3, 1)
    pred = np.roll(true, 1, axis=1)
    expected = match(true, pred, [0.3, 0.5])
    ids = np.concatenate([[0], np.sort(rng.choice(2**62, 29, replace=False)) + 70_000])
    found = match(ids.astype(np.uint64)[true], ids[pred], [0.3, 0.5])
    np.testing.assert_array_equal(found.tp, expected.tp)
    assert found.aji == expected.aji
    np.testing.assert_array_equal(found.pairs, ids[expected.pairs])


def test_one_threshold_gives_numbers():
    true = np.kron(np.diag([1, 2, 3]), np.ones((3, 3), int))
    found = match(true, np.where(true == 3, 0, true), 0.5)
    assert (found.tp, found.fp, found.fn) == (2, 0, 1)
    assert found.f1 == pytest.approx(0.8) and np.ndim(found.f1) == 0
    assert found.missed.tolist() == [3] and found.invented.tolist() == []


def test_exact_halves_match_once():
    true = np.array([[1, 1, 0]])
    pred = np.array([[1, 2, 0]])
    found = match(true, pred, 0.5)
    assert (found.tp, found.fp, found.fn) == (1, 1, 0)


def test_pooling_weighs_objects():
    many = np.kron(np.diag(np.arange(1, 9)), np.ones((3, 3), int))
    one = np.where(many == 1, 1, 0)
    scores = [match(many, many), match(one, np.zeros_like(one))]
    assert pool(scores).ap[0] == pytest.approx(8 / 9)
    assert pool(scores).aji == pytest.approx(72 / 81)
    with pytest.raises(ValueError, match="same thresholds"):
        pool([match(one, one), match(one, one, 0.5)])


@pytest.mark.parametrize(
    ("true", "pred", "thresholds", "message"),
    [
        (np.zeros((2, 2)), np.zeros((2, 2), int), 0.5, "true labels are float64"),
        (np.zeros((2, 2), int), np.zeros((2, 3), int), 0.5, r"\[2, 2\].*\[2, 3\]"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), 0.5, "predicted labels contain -1"),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), [0.5, 1.5], "thresholds"),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), [], "thresholds"),
    ],
)
def test_bad_input_is_named(true, pred, thresholds, message):
    with pytest.raises(ValueError, match=message):
        match(true, pred, thresholds)
