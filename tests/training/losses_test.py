"""Losses against float64 numpy, and on the batches that broke other implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isl_jax.training import losses

SHAPE = (2, 5, 7, 1)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    prediction = rng.normal(size=SHAPE)
    target = (rng.random(SHAPE) > 0.5).astype(float)
    weight = (rng.random(SHAPE) > 0.3).astype(float)
    return prediction, target, weight


def as_float32(*arrays):
    return [jnp.asarray(a, jnp.float32) for a in arrays]


def test_l1_and_mse_average_over_the_weighted_pixels(arrays):
    prediction, target, weight = arrays
    inside = weight > 0
    difference = (prediction - target)[inside]
    assert losses.l1(*as_float32(*arrays)) == pytest.approx(np.abs(difference).mean(), rel=1e-6)
    assert losses.mse(*as_float32(*arrays)) == pytest.approx((difference**2).mean(), rel=1e-6)


def test_bce_equals_its_definition_and_survives_large_logits(arrays):
    logits, target, weight = arrays
    p = 1 / (1 + np.exp(-logits))
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p))[weight > 0].mean()
    assert losses.bce_with_logits(*as_float32(*arrays)) == pytest.approx(expected, rel=1e-6)
    far = losses.bce_with_logits(*as_float32(1e4 * (2 * target - 1), target, weight))
    assert far == 0


def test_soft_iou_equals_its_definition(arrays):
    logits, target, weight = arrays
    p = 1 / (1 + np.exp(-logits))
    inside = weight > 0
    both = (p * target)[inside].sum()
    expected = 1 - (both + 1) / (p[inside].sum() + target[inside].sum() - both + 1)
    found = losses.soft_iou(*as_float32(p, target, weight))
    assert found == pytest.approx(expected, rel=1e-6)


def test_combined_is_equation_2(arrays):
    prediction, target, weight = arrays
    outputs = np.concatenate([prediction, 2 * prediction], axis=-1)
    targets = np.concatenate([target / 3, target], axis=-1)
    loss, mse, bce = losses.combined(*as_float32(outputs, targets, weight), alpha=2000.0)
    assert loss == pytest.approx(float(mse) + 2000 * float(bce), rel=1e-6)
    assert mse == pytest.approx(float(losses.mse(*as_float32(prediction, target / 3, weight))))


@pytest.mark.parametrize("loss", [losses.l1, losses.mse, losses.bce_with_logits, losses.soft_iou])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_empty_batches_and_empty_targets_have_finite_losses_and_gradients(loss, fill):
    for weight in (jnp.zeros(SHAPE), jnp.ones(SHAPE)):
        value, gradient = jax.value_and_grad(loss)(jnp.full(SHAPE, fill), jnp.zeros(SHAPE), weight)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", [losses.l1, losses.mse, losses.bce_with_logits, losses.soft_iou])
def test_padding_changes_nothing(arrays, loss):
    padded = [np.concatenate([a, np.full_like(a, 0.5)]) for a in arrays]
    padded[2][len(arrays[2]) :] = 0
    assert loss(*as_float32(*padded)) == pytest.approx(float(loss(*as_float32(*arrays))), rel=1e-6)
