"""From prepared data to a scored grid of runs, with a small network in the U-Net's place."""

import csv
import dataclasses
import json
import shutil

import flax.linen as nn
import jax
import numpy as np
import pytest

from isl_jax.data.coverage import annotated_subset
from isl_jax.inference import model as inference
from isl_jax.inference.model import load_model
from isl_jax.study import experiment as experiments
from isl_jax.study import shared_alpha
from isl_jax.study import sweep as sweeps
from isl_jax.study.experiment import run_experiment
from isl_jax.study.grid import Grid
from isl_jax.study.planning import plan_sweep
from isl_jax.study.sweep import run_sweep
from isl_jax.training.losses import LossSettings
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
    assert len(runs) == (8 if study == "nucleus" else 12)
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
        sweeps, "run_experiment", lambda e, w, **o: (trained.append(w.name), original(e, w, **o))
    )
    summary.unlink()
    sweep(*pair(dataset), grid, tmp_path / "sweep")
    assert trained == ["isl_n1_seed0"]
    assert summary.read_text() == expected


def test_all_arms_of_a_sweep_have_one_alpha_measured_on_the_control(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "cell")
    grid = Grid(n=(2, 1), inits=("random", "isl"), seeds=(3, 4))
    sweep(*pair(dataset), grid, tmp_path / "sweep")
    stored = json.loads((tmp_path / "sweep" / "alpha.json").read_text())
    runs = sorted((tmp_path / "sweep" / "runs").iterdir())
    assert len(runs) == 12
    alphas = {load_model(run).info.training["alpha"] for run in runs}
    assert list(alphas) == pytest.approx([stored["alpha"]])
    assert "random weights, head paper, N = 1, seed 3" in stored["measured_on"]
    # What a run alone measures, of that arm.
    model = {"encoder": "densenet121", "compute_dtype": "float32", "head": "paper", "slope": 1.0}
    run_experiment(experiment(dataset, seed=3, model=model), tmp_path / "alone")
    assert load_model(tmp_path / "alone").info.training["alpha"] == pytest.approx(stored["alpha"])


def test_alpha_is_measured_again_for_other_settings_alone(tmp_path, make_dataset, monkeypatch):
    dataset = make_dataset(tmp_path / "data", "cell")
    measured = []
    (tmp_path / "sweep").mkdir()
    monkeypatch.setattr(shared_alpha, "initial_alpha", lambda e, _: measured.append(e.seed) or 0.25)

    def alpha(seeds, **changes):
        pretrain, segment = pair(dataset)
        segment = dataclasses.replace(segment, **changes)
        plan = plan_sweep(pretrain, segment, Grid((1,), ("random",), seeds), tmp_path / "sweep")
        return plan.runs[0].alpha and plan.runs[0].alpha.value()

    assert [alpha((0,)), alpha((5, 0)), alpha((0,), distance_scale="pixels")] == [0.25] * 3
    assert measured == [0, 0]
    assert alpha((0,), loss=LossSettings(alpha="7")) is None


def test_a_failed_run_is_reported_and_the_others_finish(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "cell")
    grid = Grid(n=(99, 1), inits=("random",), seeds=(0,), comparison="paper")
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


def test_a_workdir_keeps_to_its_settings(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "cell")
    run_experiment(experiment(dataset), tmp_path / "run")
    with pytest.raises(ValueError, match=r"seed was 0, now 1.*another --workdir"):
        run_experiment(experiment(dataset, seed=1), tmp_path / "run")


def test_marker_contrast_is_calibrated_or_as_given(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "cell")
    run_experiment(experiment(dataset), tmp_path / "auto")
    assert load_model(tmp_path / "auto").info.postprocessing.h is not None
    run_experiment(experiment(dataset, instances={"h": "12.5"}), tmp_path / "given")
    assert load_model(tmp_path / "given").info.postprocessing.h == 12.5


def test_how_maps_are_read_is_calibrated_or_as_given(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "cell")
    given = {"h": "12.5", "sigma": "1.5", "threshold": "0.4", "min_size": "7", "tta": 4}
    run_experiment(experiment(dataset, instances=given), tmp_path / "given")
    info = load_model(tmp_path / "given").info
    options = info.postprocessing
    assert (options.h, options.sigma, options.threshold, options.min_size) == (12.5, 1.5, 0.4, 7)
    assert info.tta == 4
    auto = dict.fromkeys(("h", "sigma", "threshold", "min_size"), "auto")
    run_experiment(experiment(dataset, instances=auto), tmp_path / "auto")
    found = load_model(tmp_path / "auto").info.postprocessing
    assert found.h is not None and found.threshold in (0.3, 0.4, 0.5, 0.6, 0.7)
    assert load_model(tmp_path / "auto", tta=8).info.tta == 8


def test_nuclei_have_their_threshold_calibrated(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "nucleus")
    instances = {"h": "auto", "sigma": "auto", "threshold": "auto", "min_size": "3"}
    run_experiment(experiment(dataset, "nucleus", instances=instances), tmp_path / "run")
    options = load_model(tmp_path / "run").info.postprocessing
    assert (options.h, options.sigma, options.min_size) == (None, 0.0, 3)


def test_stain_weights_only_may_start_an_isl_run(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "cell")
    run_experiment(experiment(dataset), tmp_path / "segmented")
    init = {"kind": "isl", "checkpoint": str(tmp_path / "segmented"), "weights": None}
    with pytest.raises(ValueError, match="pretext run"):
        run_experiment(experiment(dataset, init=init), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"batch_size": 3}, "multiple of 4"), ({"rates": "nothing/=0.1"}, "found in no parameter")],
    ids=["batch", "rates"],
)
def test_what_is_refused_leaves_the_workdir_to_the_corrected_command(
    tmp_path, make_dataset, wrong, told
):
    right = experiment(make_dataset(tmp_path / "data", "nucleus"), "nucleus")
    refused = dataclasses.replace(right, train=dataclasses.replace(right.train, **wrong))
    with pytest.raises(ValueError, match=told):
        run_experiment(refused, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run_experiment(right, tmp_path / "run")


def test_a_run_is_resumed_without_the_weights_that_it_began_with(
    tmp_path, make_dataset, monkeypatch
):
    dataset = make_dataset(tmp_path / "data", "nucleus")
    pretrain, segment = pair(dataset, "nucleus")
    run_experiment(pretrain, tmp_path / "pretext")
    init = dataclasses.replace(segment.init, kind="isl", checkpoint=str(tmp_path / "pretext"))
    segment = dataclasses.replace(segment, init=init)
    run_experiment(segment, tmp_path / "run")
    (tmp_path / "pretext").rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")  # that of step 4 stays
    run_experiment(segment, tmp_path / "run")
    assert load_model(tmp_path / "run").info.training["step"] == 6
    with pytest.raises(FileNotFoundError, match="pretext"):
        run_experiment(segment, tmp_path / "anew")
    assert not (tmp_path / "anew").exists()


def test_a_run_that_was_scored_on_other_crops_is_scored_again_and_not_trained(
    tmp_path, make_dataset, monkeypatch
):
    dataset = make_dataset(tmp_path / "data", "nucleus")
    grid = Grid(n=(1,), inits=("random",), seeds=(0,))
    plan = plan_sweep(*pair(dataset, "nucleus"), grid, tmp_path / "sweep")
    assert run_sweep(plan) == []
    (run,) = plan.runs
    ours = scored_crops(run.workdir)
    sweeps.evaluate_run(run.workdir, dataset, dataclasses.replace(run.crops, seed=7))
    assert scored_crops(run.workdir) != ours and run.state == "to score"
    assert run_sweep(plan) == []
    assert scored_crops(run.workdir) == ours and run.state == "done"
