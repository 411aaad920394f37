import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isl_jax.metrics import iou, mean_std, pearson

PAIRS = st.tuples(st.integers(1, 6), st.integers(2, 6)).flatmap(
    lambda shape: st.tuples(
        *[hnp.arrays(np.float64, shape, elements=st.integers(-1000, 1000)) for _ in range(2)]
    )
)


@settings(max_examples=100, deadline=None)
@given(PAIRS)
def test_pearson_is_equation_3(pair):
    x, y = pair
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert pearson(x, y) == 0
    else:
        expected = np.corrcoef(x.ravel(), y.ravel())[0, 1]
        assert pearson(x, y) == pytest.approx(expected, abs=1e-10)
        assert pearson(x * 3e150 - 1, y * 1e-150) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(PAIRS)
def test_iou_is_equation_4(pair):
    x, y = (image > 0 for image in pair)
    union = (x | y).sum()
    assert iou(x, y) == ((x & y).sum() / union if union else 1)


def test_constant_images_have_no_correlation():
    image = np.random.default_rng(0).random((5, 5))
    assert pearson(np.full((5, 5), 0.1), image) == pearson(image, np.full((5, 5), 0.1)) == 0
    assert pearson(np.zeros((5, 5)), np.zeros((5, 5))) == 0


def test_pearson_of_large_16_bit_images_is_exact():
    x = np.random.default_rng(0).integers(60_000, 60_010, (600, 600)).astype(np.uint16)
    y = x[::-1]
    expected = np.corrcoef(x.ravel().astype(float), y.ravel().astype(float))[0, 1]
    assert pearson(x, y) == pytest.approx(expected, abs=1e-12)
    assert pearson(x, x) == pytest.approx(1)


def test_iou_of_probabilities_labels_and_masks():
    probability = np.array([[0.2, 0.5, 0.51, 1.0]], np.float32)
    labels = np.array([[0, 0, 7, 300]], np.uint16)
    assert iou(probability, labels) == 1.0
    assert iou(probability, labels > 7) == 0.5


def test_jax_agrees_with_numpy():
    x, y = np.random.default_rng(0).random((2, 40, 40)).astype(np.float32)
    for metric in (pearson, iou):
        value = jax.jit(metric)(jnp.asarray(x), jnp.asarray(y))
        assert value.shape == ()
        assert float(value) == pytest.approx(metric(x, y), abs=1e-5)
        assert isinstance(metric(x, y), float)
    zeros = jnp.zeros((3, 3))
    assert jax.jit(pearson)(zeros, zeros) == 0 and jax.jit(iou)(zeros, zeros) == 1


@pytest.mark.parametrize("metric", [pearson, iou])
def test_shapes_must_agree(metric):
    with pytest.raises(ValueError, match=r"\[2, 3\] and \[3, 2\]"):
        metric(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="no pixels"):
        metric(np.zeros((0, 3)), np.zeros((0, 3)))


def test_mean_std_is_the_population_one_and_leaves_nan_out():
    score = mean_std([0.2, math.nan, 0.6])
    assert (score.mean, score.std, score.count) == (pytest.approx(0.4), pytest.approx(0.2), 2)
    assert str(score) == "0.40 ± 0.20"
    assert mean_std([]).count == 0 and str(mean_std([math.nan])) == "–"
