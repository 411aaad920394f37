"""What an experiment makes of its settings, and what it leaves in its folder."""

import dataclasses
import json

import numpy as np
import pytest

from isl_jax.configs import cell
from isl_jax.data.crops import fixed_crops
from isl_jax.launch.configuration import to_experiment
from isl_jax.study.experiment import _crops, _training_data
from isl_jax.study.workdir import prepare_workdir


@pytest.fixture
def config(tmp_path, make_dataset):
    config = cell.get_config("segment,n=2")
    config.data.root = str(make_dataset(tmp_path / "data", "cell").root)
    config.init.kind = "random"
    config.data.crop_size = 32
    return config


def test_both_placements_hold_the_same_crops_in_the_same_order(config, tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "again", "cell")
    rule = to_experiment(config).crop_rule
    recipe = {"size": 32, "per_image": 3, "seed": 0, "rule": rule}
    crops, _ = fixed_crops(dataset, dataset.select("train"), **recipe)
    content = {"target": "distance_and_semantic"}
    made = {}
    for placement in ("host", "device"):
        config.data.placement = placement
        made[placement] = _training_data(to_experiment(config), dataset, crops, content)
    batches, nothing = made["host"]
    order, held = made["device"]
    assert nothing is None
    for _ in range(5):
        batch, index = next(batches), next(order)["index"]
        for name, array in batch.items():
            np.testing.assert_array_equal(array, held[name][index])
    assert batches.get_state() == order.get_state()


def test_fresh_crops_come_from_the_host_and_change_every_epoch(config, tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "again", "cell")
    config.data.fresh_crops, config.train.batch_size = True, 2
    chosen = to_experiment(config)
    crops = _crops(chosen, dataset, dataset.select("train"), fresh=chosen.data.fresh_crops)
    content = {"target": "distance_and_semantic"}
    batches, resident = _training_data(chosen, dataset, crops, content)
    assert resident is None  # also where `auto` would put as many fixed crops on the device
    seen = [image.tobytes() for _ in range(len(crops)) for image in next(batches)["image"]]
    assert len(set(seen)) > len(crops)  # two epochs hold more than one epoch's crops
    config.data.placement = "device"
    with pytest.raises(ValueError, match=r"data.fresh_crops.*device"):
        to_experiment(config)


def test_a_workdir_remembers_what_changes_numbers_and_no_more(config, tmp_path):
    prepare_workdir(dataclasses.asdict(to_experiment(config)), tmp_path)
    config.profile, config.data.placement, config.data.num_workers = "5:9", "host", 3
    prepare_workdir(dataclasses.asdict(to_experiment(config)), tmp_path)
    config.data.root = "elsewhere"
    with pytest.raises(ValueError, match=r"data\.root was .*elsewhere.*another --workdir"):
        prepare_workdir(dataclasses.asdict(to_experiment(config)), tmp_path)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert len(environment["config_hash"]) == 64
    assert {"versions", "devices", "git_revision", "num_processes"} <= environment.keys()


def test_a_run_from_before_a_setting_existed_can_be_resumed(config, tmp_path):
    now = dataclasses.asdict(to_experiment(config))
    before = json.loads(json.dumps(now))
    del before["train"]["patience"], before["data"]["placement"], before["profile"]
    (tmp_path / "config.json").write_text(json.dumps(before))
    now["writers"] = ""
    prepare_workdir(now, tmp_path)
    now["train"]["patience"] = 3
    with pytest.raises(ValueError, match=r"patience was 0, now 3"):
        prepare_workdir(now, tmp_path)
