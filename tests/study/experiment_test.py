"""What an experiment makes of its settings, and what it leaves in its folder."""

import json
import re

import numpy as np
import pytest

from isl_jax.configs import cell
from isl_jax.launch.configuration import to_experiment
from isl_jax.study.experiment import _crop_source, _training_data
from isl_jax.study.workdir import changed_settings, prepare_workdir


@pytest.fixture
def config(tmp_path, make_dataset):
    config = cell.get_config("segment,n=2,preset=paper")
    config.data.root = str(make_dataset(tmp_path / "data", "cell").root)
    config.init.kind = "random"
    config.data.crop_size = 32
    return config


def training_data(experiment, dataset):
    fresh = experiment.data.fresh_crops
    source = _crop_source(experiment, dataset, dataset.select("train"), fresh=fresh)
    none = _crop_source(experiment, dataset, ())
    return source, _training_data(experiment, source, none)


def test_both_placements_hold_the_same_crops_in_the_same_order(config, tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "again", "cell")
    config.data.crops_per_image = 6
    made = {}
    for placement in ("host", "device"):
        config.data.placement = placement
        made[placement] = training_data(to_experiment(config), dataset)[1]
    host, device = made["host"], made["device"]
    assert host.resident is None and host.validation is None
    for _ in range(5):
        batch, index = next(host.batches), next(device.batches)["index"]
        for name, array in batch.items():
            np.testing.assert_array_equal(array, device.resident[name][index])
    assert host.batches.get_state() == device.batches.get_state()


def test_fresh_crops_come_from_the_host_and_change_every_epoch(config, tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "again", "cell")
    config.data.fresh_crops, config.train.batch_size = True, 2
    source, data = training_data(to_experiment(config), dataset)
    assert data.resident is None  # also where `auto` would put as many fixed crops on the device
    num_crops = len(source.crops)
    seen = [image.tobytes() for _ in range(num_crops) for image in next(data.batches)["image"]]
    assert len(set(seen)) > num_crops  # two epochs hold more than one epoch's crops
    config.data.placement = "device"
    with pytest.raises(ValueError, match=r"data.fresh_crops.*device"):
        to_experiment(config)


def test_a_workdir_remembers_what_changes_numbers_and_no_more(config, tmp_path):
    prepare_workdir(to_experiment(config).to_json(), tmp_path)
    config.profile, config.data.placement, config.data.num_workers = "5:9", "host", 3
    prepare_workdir(to_experiment(config).to_json(), tmp_path)
    config.data.root = "elsewhere"
    with pytest.raises(ValueError, match=r"data\.root was .*elsewhere.*another --workdir"):
        prepare_workdir(to_experiment(config).to_json(), tmp_path)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert len(environment["config_hash"]) == 64
    assert {"versions", "devices", "git_revision", "num_processes"} <= environment.keys()


def test_a_run_from_before_a_setting_existed_can_be_resumed(config, tmp_path):
    now = to_experiment(config).to_json()
    before = json.loads(json.dumps(now))
    del before["train"]["patience"], before["data"]["placement"], before["profile"]
    del before["train"]["num_samples"]
    before["train"]["steps_per_call"] = 1
    (tmp_path / "config.json").write_text(json.dumps(before))
    now["writers"] = ""
    prepare_workdir(now, tmp_path)
    now["train"]["patience"] = 3
    with pytest.raises(ValueError, match=r"patience was 0, now 3"):
        prepare_workdir(now, tmp_path)


@pytest.mark.parametrize(
    ("init", "before", "now"),
    [("random", "paper", "none"), ("isl", "paper", "paper"), ("isl", "reference", "reference")],
)
def test_a_head_of_before_stood_after_isl_networks_alone(config, tmp_path, init, before, now):
    config.init.kind = init
    config.init.checkpoint = "W" if init == "isl" else None
    config.model.head = now
    made = to_experiment(config).to_json()
    stored = json.loads(json.dumps(made))
    del stored["target"]["distance_peaks"]
    stored["instances"] = {"h": "auto"}
    stored["model"]["head"] = before
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert changed_settings(made, tmp_path / "config.json") == []
    config.model.head = "none" if now != "none" else "paper"
    (told,) = changed_settings(to_experiment(config).to_json(), tmp_path / "config.json")
    assert told == f"model.head was {now!r}, now {config.model.head!r}"


def test_a_run_that_made_several_steps_in_one_call_cannot_be_resumed(config, tmp_path):
    stored = to_experiment(config).to_json()
    stored["train"]["steps_per_call"] = 4
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=re.escape("train.steps_per_call was 4")):
        prepare_workdir(to_experiment(config).to_json(), tmp_path)
