"""From prepared data to a scored grid of runs, with a small network in the U-Net's place."""

import csv
import dataclasses
import json

import flax.linen as nn
import jax
import numpy as np
import pytest

from isl_jax.data.store import annotated_subset
from isl_jax.inference import model as inference
from isl_jax.inference.model import load_model
from isl_jax.study import experiment as experiments
from isl_jax.study import planning
from isl_jax.study import sweep as sweeps
from isl_jax.study.experiment import Experiment, run_experiment
from isl_jax.study.planning import Grid, available_inits, plan_sweep
from isl_jax.study.sweep import run_sweep
from tests.study.conftest import experiment, pair


class SmallNetwork(nn.Module):
    """Two convolutions with BatchNorm; `head` adds a layer as the two-convolution head does."""

    out_channels: int
    head: str

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(8, (5, 5), use_bias=False, name="body")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.5, name="norm")(x))
        return nn.Conv(self.out_channels, (1, 1), name=f"head_{self.head}_{self.out_channels}")(x)


def small_variables(network, *, in_channels, seed):
    image = np.zeros((1, 8, 8, in_channels), np.float32)
    return jax.tree.map(np.asarray, network.init(jax.random.key(seed), image))


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    for module in (experiments, inference):
        monkeypatch.setattr(
            module,
            "build_network",
            lambda *, out_channels, head="none", **_: SmallNetwork(out_channels, head),
        )
    monkeypatch.setattr(experiments, "init_variables", small_variables)


def sweep(pretrain, segment, grid, workdir):
    return run_sweep(plan_sweep(pretrain, segment, grid, workdir))


def scored_crops(run):
    with (run / "evaluation" / "crops.csv").open() as file:
        return tuple((row["field"], row["top"], row["left"]) for row in csv.DictReader(file))


@pytest.fixture(params=["nucleus", "cell"])
def study(request):
    return request.param


def test_a_sweep_trains_and_scores_every_run_on_the_same_crops(tmp_path, make_dataset, study):
    dataset = make_dataset(tmp_path / "data", study)
    grid = Grid(n=(1, 2), inits=("random", "isl"), seeds=(0, 1))
    assert sweep(*pair(dataset, study), grid, tmp_path / "sweep") == []
    runs = sorted((tmp_path / "sweep" / "runs").iterdir())
    assert len(runs) == 8
    assert len({scored_crops(run) for run in runs}) == 1
    for run in runs:
        training = json.loads((run / "model" / "model.json").read_text())["training"]
        config = json.loads((run / "config.json").read_text())
        chosen = annotated_subset(dataset, config["num_annotated"], config["seed"])
        assert training["fields"] == [field.name for field in chosen]


def test_what_is_done_is_skipped_and_what_was_cut_is_resumed(tmp_path, make_dataset, monkeypatch):
    dataset = make_dataset(tmp_path / "data", "cell")
    grid = Grid(n=(1,), inits=("random", "isl"), seeds=(0,))
    sweep(*pair(dataset), grid, tmp_path / "sweep")
    summary = tmp_path / "sweep" / "runs" / "isl_n1_seed0" / "evaluation" / "summary.json"
    expected = summary.read_text()
    trained = []
    original = sweeps.run_experiment
    monkeypatch.setattr(
        sweeps, "run_experiment", lambda e, w: (trained.append(w.name), original(e, w))
    )
    summary.unlink()
    sweep(*pair(dataset), grid, tmp_path / "sweep")
    assert trained == ["isl_n1_seed0"]
    assert summary.read_text() == expected


def test_a_failed_run_is_reported_and_the_others_finish(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "cell")
    grid = Grid(n=(99, 1), inits=("random",), seeds=(0,))
    failures = sweep(*pair(dataset), grid, tmp_path / "sweep")
    assert len(failures) == 1
    assert "random_n99_seed0" in failures[0]
    assert (tmp_path / "sweep" / "runs" / "random_n99_seed0" / "failure.txt").exists()
    assert (tmp_path / "sweep" / "runs" / "random_n1_seed0" / "evaluation").is_dir()


def test_a_failed_pretext_run_fails_its_isl_runs_only(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "cell")
    pretrain, segment = pair(dataset)
    hopeless = dataclasses.replace(pretrain.train, batch_size=3)  # does not divide over 4 devices
    pretrain = dataclasses.replace(pretrain, train=hopeless)
    grid = Grid(n=(1,), inits=("random", "isl"), seeds=(0,))
    failures = sweep(pretrain, segment, grid, tmp_path / "sweep")
    assert [line.split(":")[0] for line in failures] == ["pretrain", "isl_n1_seed0"]


def test_random_stands_in_for_weights_that_cannot_be_had(monkeypatch):
    def unreachable(source):
        raise OSError("no network:\nfetch it elsewhere")

    monkeypatch.setattr(planning.weights, "load_imagenet", unreachable)
    inits, reason = available_inits(("imagenet", "isl"), source=None, stand_in="random")
    assert inits == ("random", "isl")
    assert reason == "no network: fetch it elsewhere"
    with pytest.raises(OSError, match="no network"):
        available_inits(("imagenet",), source=None, stand_in=None)
    assert available_inits(("random",), source=None, stand_in=None) == (("random",), None)


def test_a_workdir_keeps_to_its_settings(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "cell")
    run_experiment(experiment(dataset), tmp_path / "run")
    with pytest.raises(ValueError, match=r"seed was 0, now 1.*another --workdir"):
        run_experiment(experiment(dataset, seed=1), tmp_path / "run")


def test_marker_contrast_is_calibrated_or_as_given(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "cell")
    run_experiment(experiment(dataset), tmp_path / "auto")
    assert load_model(tmp_path / "auto").info.h is not None
    run_experiment(experiment(dataset, instances={"h": "12.5"}), tmp_path / "given")
    assert load_model(tmp_path / "given").info.h == 12.5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"root": None}}, "data.root"),
        ({"init": {"kind": "isl"}}, "init.checkpoint"),
        ({"init": {"kind": "magic"}}, "magic"),
        ({"study": "tissue"}, "tissue"),
        ({"model": {"head": "hydra"}}, "hydra"),
        ({"target": {"distance_scale": "miles"}}, "miles"),
        ({"instances": {"h": "high"}}, "high"),
    ],
    ids=str,
)
def test_unusable_settings_are_refused_before_anything_is_read(
    make_dataset, tmp_path, changes, told
):
    dataset = make_dataset(tmp_path / "data", "cell")
    valid = json.loads(json.dumps(dataclasses.asdict(experiment(dataset))))
    for name, value in changes.items():
        valid[name] = valid[name] | value if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=told):
        Experiment.from_mapping(valid)


def test_stain_weights_only_may_start_an_isl_run(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "cell")
    run_experiment(experiment(dataset), tmp_path / "segmented")
    init = {"kind": "isl", "checkpoint": str(tmp_path / "segmented"), "weights": None}
    with pytest.raises(ValueError, match="pretext run"):
        run_experiment(experiment(dataset, init=init), tmp_path / "run")
    assert not (tmp_path / "run").exists()
