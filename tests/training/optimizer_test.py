"""Schedules at the steps that matter."""

import dataclasses

import numpy as np
import optax
import pytest

from isl_jax.training.optimizer import check_rates, learning_rate_schedule, make_optimizer
from isl_jax.training.packing import Packing
from isl_jax.training.settings import TrainSettings


def rates(**changes):
    settings = TrainSettings(4, num_steps=100, learning_rate=1e-3, **changes)
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


def moved_once(params, settings):
    """`params` after a step along gradients of ones."""
    packing = Packing.of(params)
    vector, optimizer = packing.join(params), make_optimizer(settings, packing)
    updates, _ = optimizer.update(np.ones_like(vector), optimizer.init(vector), vector)
    return packing.split(optax.apply_updates(vector, updates))


def test_the_head_may_learn_faster_than_the_rest():
    params = {"unet": {"kernel": np.zeros(3)}, "head": {"conv1": {"bias": np.zeros(2)}}}
    settings = TrainSettings(4, num_steps=1, learning_rate=1e-3, head_rate=10.0)
    moved = moved_once(params, settings)
    np.testing.assert_allclose(moved["unet"]["kernel"], -1e-3, rtol=1e-4)
    np.testing.assert_allclose(moved["head"]["conv1"]["bias"], -1e-2, rtol=1e-4)


def test_rates_by_path_freeze_and_slow_down():
    params = {"unet": {"encoder": {"conv0": np.zeros(2), "conv1": np.zeros(2)}, "out": np.zeros(2)}}
    rates = "encoder/conv0=0; encoder/=0.1"
    settings = TrainSettings(4, num_steps=1, learning_rate=1e-3, rates=rates)
    moved = moved_once(params, settings)["unet"]
    assert not np.any(moved["encoder"]["conv0"])
    np.testing.assert_allclose(moved["encoder"]["conv1"], -1e-4, rtol=1e-4)
    np.testing.assert_allclose(moved["out"], -1e-3, rtol=1e-4)
    check_rates(settings, params)
    with pytest.raises(ValueError, match=r"'head/'.*unet/encoder/conv0"):
        check_rates(dataclasses.replace(settings, rates="head/=2"), params)


def test_gradients_are_clipped_by_their_norm():
    settings = TrainSettings(4, num_steps=1, learning_rate=1.0, clip_norm=1.0)
    params = np.zeros(2, np.float32)
    optimizer = make_optimizer(settings, Packing.of(params))
    state = optimizer.update(np.array([30.0, 40.0], np.float32), optimizer.init(params), params)[1]
    first_moment = optax.tree.get(state, "mu")
    np.testing.assert_allclose(first_moment, 0.1 * np.array([0.6, 0.8]), rtol=1e-5)
