"""Settings of a training: its length, and what no run could work with."""

import dataclasses

import pytest

from isl_jax.training.losses import LossSettings
from isl_jax.training.settings import RunSettings, TrainSettings


def settings(**changes):
    return TrainSettings(4, **{"learning_rate": 1e-3, "num_samples": 50} | changes)


def length(settings):
    return settings.num_samples, settings.num_epochs, settings.num_steps


@pytest.mark.parametrize(
    ("changes", "expected", "num_steps"),
    [
        ({}, (0, 0, 13), 13),
        ({"num_epochs": 2.5}, (0, 2.5, 0), 7),
        ({"num_epochs": 2.5, "num_steps": 3}, (0, 0, 3), 3),
        ({"num_steps": None}, (0, 0, 13), 13),  # a placeholder of the configuration
    ],
)
def test_one_of_the_three_lengths_counts(changes, expected, num_steps):
    found = settings(**changes)
    assert length(found) == expected
    assert length(found.with_length(11)) == (0, 0, num_steps)
    # What config.json holds means the same again.
    assert TrainSettings(**dataclasses.asdict(found)) == found
    assert hash(found) == hash(settings(**changes))


def test_a_length_is_asked_for():
    with pytest.raises(ValueError, match="the length is not set"):
        settings(num_samples=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"keep": "newest"},
        {"schedule": "triangle"},
        {"batch_size": 0},
        {"validate_every": 0},
        {"num_steps": -1},
        {"num_samples": -1},
        {"num_epochs": -1.0},
        {"num_epochs": float("nan")},
    ],
    ids=lambda c: next(iter(c)),
)
def test_unusable_settings_are_refused(changes):
    (name, value) = next(iter(changes.items()))
    with pytest.raises(ValueError, match=rf"train\.{name}={value!r}"):
        dataclasses.replace(settings(), **{"num_steps": 0, "num_samples": 50} | changes)


@pytest.mark.parametrize("text", ["encoder", "encoder=fast", "=0.1", "enc(oder=1", "encoder=-1"])
def test_rates_that_mean_nothing_are_refused(text):
    with pytest.raises(ValueError, match=r"train\.rates"):
        settings(rates=text)


@pytest.mark.parametrize("text", ["3", "5:3", "0:3", "a:b"])
def test_a_profile_is_two_steps(text):
    assert RunSettings(profile="3:5").profiled_steps == (3, 5)
    assert RunSettings().profiled_steps is None
    with pytest.raises(ValueError, match="FIRST:LAST"):
        RunSettings(profile=text)


def test_writers_are_known():
    assert RunSettings(writers="tensorboard, mlflow,").writer_names == ("tensorboard", "mlflow")
    with pytest.raises(ValueError, match="excel"):
        RunSettings(writers="tensorboard,excel")


@pytest.mark.parametrize("changes", [{"alpha": "large"}, {"alpha_batches": 0}])
def test_alpha_is_a_number_or_measured(changes):
    with pytest.raises(ValueError, match=str(next(iter(changes.values())))):
        LossSettings(**changes)
