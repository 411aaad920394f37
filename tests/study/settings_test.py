"""Lengths of a training, however they are given."""

import pytest

from isl_jax.configs import cell, demo, nucleus
from isl_jax.launch.configuration import to_experiment
from isl_jax.study.settings import parse_profile, with_num_steps


def experiment(config, **schedule):
    config.data.root = "DATA"
    config.init.kind = "random"
    config.train.update(schedule)
    return to_experiment(config)


def num_steps(num_crops=50, **schedule):
    config = nucleus.get_config("segment,n=10")
    settings = experiment(config, **schedule).train_settings(num_crops)
    return settings.optimizer.num_steps


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({}, 2000),  # the paper's 20 000 samples in batches of 10
        ({"batch_size": 16}, 1250),
        ({"batch_size": 3}, 6667),
        ({"num_epochs": 2.5}, 13),
        ({"num_epochs": 2.0, "num_steps": 7}, 7),
        ({"num_steps": 120, "num_samples": 1}, 120),
        ({"num_samples": 101, "steps_per_call": 4}, 12),
        ({"num_epochs": 1.0, "steps_per_call": 4}, 8),
    ],
)
def test_a_budget_is_samples_epochs_or_steps(schedule, expected):
    schedule = {"checkpoint_every": 400, "validate_every": 400} | schedule
    assert num_steps(**schedule) == expected


def test_no_budget_is_refused():
    with pytest.raises(ValueError, match="num_samples, num_epochs or num_steps"):
        with_num_steps({"num_steps": None, "num_samples": 0, "batch_size": 4})


def test_studies_keep_their_own_lengths():
    assert experiment(demo.get_config("study=cell,segment")).train.num_steps == 120
    assert experiment(cell.get_config("pretrain")).train.num_steps == 20_000


def test_a_profile_names_two_steps():
    assert parse_profile("") is None
    assert parse_profile("100:110") == (100, 110)
    for text in ("100", "110:100", "0:5", "a:b"):
        with pytest.raises(ValueError, match=f"profile='{text}'"):
            parse_profile(text)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("data", "placement", "cloud"),
        ("train", "rates", "encoder"),
        (None, "writers", "excel"),
        (None, "profile", "5"),
    ],
)
def test_bad_values_are_refused_by_name(section, name, value):
    config = nucleus.get_config("segment")
    (config[section] if section else config)[name] = value
    with pytest.raises(ValueError, match=name):
        experiment(config)
