"""Schedules at the steps that matter."""

import numpy as np
import pytest

from isl_jax.training.optimizer import OptimizerSettings, learning_rate_schedule


def rates(**changes):
    settings = OptimizerSettings(num_steps=100, learning_rate=1e-3, **changes)
    schedule = learning_rate_schedule(settings)
    return np.array([float(schedule(step)) for step in range(101)])


def test_constant_is_constant():
    np.testing.assert_allclose(rates(), 1e-3)


def test_warm_up_rises_from_a_first_step_that_counts():
    found = rates(warmup_steps=10)
    np.testing.assert_allclose(found[:10], 1e-3 * np.arange(1, 11) / 10, rtol=1e-5)
    np.testing.assert_allclose(found[10:], 1e-3)


def test_cosine_decays_to_zero_at_the_last_step():
    found = rates(warmup_steps=10, schedule="cosine")
    assert found[10] == pytest.approx(1e-3)
    assert found[55] == pytest.approx(0.5e-3)
    assert found[100] == pytest.approx(0, abs=1e-9)


def test_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="triangle"):
        rates(schedule="triangle")
