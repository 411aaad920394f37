"""Lengths of a training, however they are given, and settings that no run could work with."""

import json

import pytest

from isl_jax.configs import brightfield, cell, demo, hela, nucleus
from isl_jax.launch.configuration import to_experiment, with_given_length
from isl_jax.study.settings import Experiment
from isl_jax.task import Task


def experiment(config, **schedule):
    config.data.root = "DATA"
    config.init.kind = "random"
    config.train.update(schedule)
    return to_experiment(config)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({}, 2000),  # the paper's 20 000 samples in batches of 10
        ({"batch_size": 16}, 1250),
        ({"batch_size": 3}, 6667),
        ({"num_epochs": 2.5}, 13),
        ({"num_epochs": 2.0, "num_steps": 7}, 7),
        ({"num_steps": 120, "num_samples": 1}, 120),
        ({"num_samples": 101}, 11),
    ],
)
def test_a_budget_is_samples_epochs_or_steps(schedule, expected):
    settings = experiment(nucleus.get_config("segment,n=10"), **schedule).train
    assert settings.with_length(50).num_steps == expected


def test_no_budget_is_refused():
    with pytest.raises(ValueError, match="num_samples, num_epochs or num_steps"):
        experiment(nucleus.get_config("segment"), num_samples=0)


def test_studies_keep_their_own_lengths():
    assert experiment(demo.get_config("study=cell,segment")).train.num_steps == 120
    assert experiment(cell.get_config("pretrain")).train.num_steps == 20_000


@pytest.mark.parametrize("stage", ["pretrain", "train"])
@pytest.mark.parametrize("study", [nucleus, demo, hela, brightfield])
def test_a_length_on_the_command_line_outranks_that_of_the_file(study, stage):
    for name, value, expected in (
        ("num_epochs", 2.0, 20),
        ("num_samples", 40, 10),
        ("num_steps", 7, 7),
        ("num_steps", 0, None),  # is none: what the file sets stays
    ):
        config = study.get_config().to_dict()
        config[stage]["batch_size"] = 4
        config["data"]["root"], config["init"]["kind"] = "DATA", "random"
        if expected is None:
            config[stage]["num_steps"] = None
        else:
            config[stage][name] = value
        read = with_given_length(config, [f"{stage}.{name}", "seed"])
        other = "train" if stage == "pretrain" else "pretrain"
        assert read[other] == config[other]
        made = to_experiment(
            {k: v for k, v in read.items() if k != "pretrain"}
            | {"stage": "segment", "train": read[stage]}
        )
        if expected is not None:
            assert made.train.with_length(40).num_steps == expected
        else:
            assert made.train.num_steps == -(-config[stage]["num_samples"] // 4)


def test_of_two_lengths_on_the_command_line_the_more_specific_one_counts():
    config = hela.get_config().to_dict()
    config["train"] |= {"num_steps": 9, "num_epochs": 2.0}
    read = with_given_length(config, ["train.num_steps", "train.num_epochs"])
    assert (read["train"]["num_steps"], read["train"]["num_epochs"]) == (9, 2.0)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("data", "placement", "cloud"),
        ("data", "root", None),
        ("train", "rates", "encoder"),
        ("train", "keep", "newest"),
        ("loss", "alpha", "large"),
        ("init", "kind", "magic"),
        ("init", "kind", "isl"),  # without init.checkpoint
        ("model", "head", "hydra"),
        ("model", "compute_dtype", "float8"),
        ("target", "distance_scale", "miles"),
        ("target", "distance_unit", 0.0),
        *(("instances", "h", h) for h in ("high", "-5", "nan", "inf", "")),
        *(("instances", "sigma", sigma) for sigma in ("wide", "-1", "nan", "99")),
        *(("instances", "threshold", threshold) for threshold in ("0", "1", "50", "nan")),
        *(("instances", "min_size", size) for size in ("-1", "2.5", "big")),
        ("instances", "tta", 2),
        ("target", "distance_peaks", "two"),
        (None, "study", "tissue"),
        (None, "writers", "excel"),
        (None, "profile", "5"),
    ],
)
def test_bad_values_are_refused_by_name(section, name, value):
    config = experiment(nucleus.get_config("segment")).to_json()
    (config[section] if section else config)[name] = value
    told = name if section is None else f"{section}.*{name}"
    with pytest.raises(ValueError, match=told):
        Experiment.from_mapping(config)


@pytest.mark.parametrize("h", ["auto", "0", "12.5"])
def test_a_marker_contrast_is_auto_or_a_number(h):
    config = cell.get_config("segment")
    config.instances.h = h
    assert experiment(config).instances.h == h


def test_the_tasks_are_those_of_the_paper():
    def task(study, stage, init):
        config = study.get_config(stage).to_dict()
        config["data"]["root"] = "DATA"
        config["model"]["slope"] = 2.0
        config["init"] |= {"kind": init, "checkpoint": "W" if init == "isl" else None}
        made = to_experiment(config)
        return made.task, made.head

    assert task(nucleus, "pretrain", "imagenet") == (Task("stain"), "none")
    assert task(cell, "pretrain", "random") == (Task("stain"), "none")
    assert task(nucleus, "segment", "imagenet") == (Task("semantic"), "none")
    shifted = Task("semantic", activation="shifted_sigmoid", slope=2.0)
    assert task(nucleus, "segment", "isl") == (shifted, "none")
    assert task(cell, "segment", "imagenet") == (Task("distance_and_semantic"), "none")
    assert task(cell, "segment", "isl") == (Task("distance_and_semantic"), "paper")


@pytest.mark.parametrize("init", ["random", "imagenet", "isl"])
def test_a_head_that_is_named_stands_after_every_cell_network(init):
    config = cell.get_config("segment").to_dict()
    config["data"]["root"] = "DATA"
    config["init"] |= {"kind": init, "checkpoint": "W" if init == "isl" else None}
    for head in ("none", "paper", "reference"):
        config["model"]["head"] = head
        assert to_experiment(config).head == head
        assert to_experiment(config | {"study": "nucleus"}).head == "none"


def test_the_papers_preset_is_what_there_was_before():
    config = cell.get_config("segment,preset=paper").to_dict()
    assert config["target"]["distance_peaks"] == "all"
    data, instances = config["data"], config["instances"]
    assert (data["fresh_crops"], data["flips"], data["intensity"]) == (False, False, 0.0)
    read = {"h": "auto", "sigma": "0", "threshold": "0.5", "min_size": "0", "tta": 1}
    assert instances == read


def test_settings_survive_json():
    config = cell.get_config("segment,n=3")
    config.target.distance_scale, config.model.head = "pixels", "reference"
    made = experiment(config)
    stored = json.loads(json.dumps(made.to_json()))
    assert Experiment.from_mapping(stored) == made
    assert stored["target"] == {
        "distance_scale": "pixels",
        "distance_unit": 255.0,
        "distance_peaks": "single",
    }
