"""The plan of a sweep: what it will run, how far that is, and how long the rest takes."""

import dataclasses
import json

import pytest

from isl_jax.study import planning
from isl_jax.study.grid import Grid
from isl_jax.study.planning import plan_sweep
from tests.study.conftest import experiment, pair

STEPS, BATCH, CROP = 6, 4, 64  # of the experiments of these tests


@pytest.fixture
def dataset(make_dataset, tmp_path):
    return make_dataset(tmp_path / "data", "cell")


@pytest.fixture
def make_plan(dataset, tmp_path):
    def make(n=(1, 2), inits=("random", "isl"), seeds=(0,), comparison="paper", **options):
        grid = Grid(n, inits, seeds, comparison)
        return plan_sweep(*pair(dataset), grid, tmp_path / "sweep", **options)

    return make


def leave(run, *, step=0, speeds=(), seconds=None, scored=None):
    """What a run would have left in its folder."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    (run.workdir / "config.json").write_text(json.dumps(run.experiment.to_json()))
    lines = [json.dumps({"step": 1, "split": "train", "loss": 1.0})]
    lines += [json.dumps({"step": 2, "split": "train", "images_per_second": v}) for v in speeds]
    (run.workdir / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 3, "spl']))
    if step:
        (run.workdir / "checkpoints" / str(step)).mkdir(parents=True)
        (run.workdir / "checkpoints" / f"{step + 1}.orbax-checkpoint-tmp").mkdir()
    if seconds is not None:
        timing = {"seconds": seconds, "steps": STEPS}
        (run.workdir / "timing.json").write_text(json.dumps(timing))
    if scored is not None:
        (run.workdir / "evaluation").mkdir()
        score = {"mean": 0.5, "std": 0.1, "count": 3}
        summary = {"metric": "map", "crops": score, "fields": score} | scored
        (run.workdir / "evaluation" / "summary.json").write_text(json.dumps(summary))


def write_model(folder):
    folder.mkdir(parents=True)
    for name in ("model.json", "weights.safetensors"):
        (folder / name).write_text("{}")


def test_the_grid_is_planned_with_the_pretext_run_first_and_small_n_before_large(make_plan):
    plan = make_plan(n=(1, 4), seeds=(0, 1))
    assert [run.name for run in plan.runs] == [
        "pretrain",
        *(
            f"{init}_n{n}_seed{seed}"
            for n in (1, 4)
            for seed in (0, 1)
            for init in ("random", "isl")
        ),
    ]
    assert len({run.crops for run in plan.runs}) == 1
    for run in plan.runs[1:]:
        is_isl = run.experiment.init.kind == "isl"
        assert run.experiment.init.checkpoint == (str(plan.runs[0].workdir) if is_isl else None)


@pytest.mark.parametrize(
    ("comparison", "arms"),
    [
        ("paper", {"random": "none", "imagenet": "none", "isl": "paper"}),
        ("fair", {"random-head": "paper", "imagenet-head": "paper", "isl": "paper"}),
        (
            "both",
            {"random": "none", "random-head": "paper"}
            | {"imagenet": "none", "imagenet-head": "paper", "isl": "paper"},
        ),
    ],
)
def test_the_control_carries_the_head_of_the_isl_arm(make_plan, monkeypatch, comparison, arms):
    monkeypatch.setattr(planning, "missing_imagenet", lambda *_: None)
    plan = make_plan(n=(1,), inits=("random", "imagenet", "isl"), comparison=comparison)
    found = {run.name.removesuffix("_n1_seed0"): run.experiment for run in plan.runs[1:]}
    assert {name: one.head for name, one in found.items()} == arms
    assert all(name.startswith(one.init.kind) for name, one in found.items())
    assert plan.description["arms"] == list(arms)
    assert (plan.description["head"], plan.description["comparison"]) == ("paper", comparison)


def test_networks_without_a_head_need_no_control(dataset, tmp_path):
    pretrain, segment = pair(dataset)
    without = dataclasses.replace(segment, model=dataclasses.replace(segment.model, head="none"))
    nucleus = dataclasses.replace(segment, study="nucleus")
    for stage in (without, nucleus):
        plan = plan_sweep(pretrain, stage, Grid((1,), ("random", "isl"), (0,)), tmp_path)
        assert plan.description["arms"] == ["random", "isl"]
        assert {run.experiment.head for run in plan.runs} == {"none"}


def test_the_head_that_was_chosen_stands_in_both_arms(dataset, tmp_path):
    pretrain, segment = pair(dataset)
    chosen = dataclasses.replace(segment.model, head="reference")
    segment = dataclasses.replace(segment, model=chosen)
    plan = plan_sweep(pretrain, segment, Grid((1,), ("random", "isl"), (0,)), tmp_path)
    assert [run.experiment.head for run in plan.runs] == ["none", "none", "reference", "reference"]


def test_no_pretext_run_without_isl_or_with_weights_that_are_there(make_plan, tmp_path):
    assert all(run.name != "pretrain" for run in make_plan(inits=("random",)).runs)
    with pytest.raises(FileNotFoundError, match=r"pretext/model\.json: no such file"):
        make_plan(isl_checkpoint=str(tmp_path / "pretext"))
    write_model(tmp_path / "pretext" / "model")
    plan = make_plan(isl_checkpoint=str(tmp_path / "pretext"))
    assert all(run.name != "pretrain" for run in plan.runs)
    assert plan.runs[1].experiment.init.checkpoint == str(tmp_path / "pretext")


def test_states_are_read_from_what_the_runs_left(make_plan, dataset):
    plan = make_plan()
    pretrain, random1, isl1, random2, _ = plan.runs
    leave(pretrain, step=STEPS, scored={})
    leave(random1, step=3)
    isl1.workdir.mkdir(parents=True)
    (isl1.workdir / "failure.txt").write_text("ValueError: out of luck")
    leave(dataclasses.replace(random2, experiment=experiment(dataset, seed=9)))
    states = [run.state for run in plan.runs]
    assert states == ["done", "to resume", "failed before", "other settings", "to do"]
    assert [run.step for run in plan.runs] == [STEPS, 3, 0, 0, 0]
    assert [run.name for run in plan.remaining] == [run.name for run in plan.runs[1:]]
    table = plan.table()
    assert "5 runs: 1 done, 1 to resume, 1 failed before, 1 other settings, 1 to do" in table
    assert "another --workdir" in table
    assert f"3 of {STEPS}" in table


def test_time_is_not_known_before_a_run_has_trained(make_plan):
    plan = make_plan()
    assert plan.estimate() is None
    assert "not known until a run has trained" in plan.table()


def test_time_from_the_speed_and_the_overhead_of_runs_so_far(make_plan):
    plan = make_plan()
    pretrain, random1, *_ = plan.runs
    # 24 crops at 2 a second are 12 of its 30 seconds: 18 are compilation and evaluation.
    leave(pretrain, step=STEPS, speeds=(1.0, 2.0, 8.0), seconds=30.0, scored={})
    leave(random1, step=4)
    left = (3 * STEPS + STEPS - 4) * BATCH
    assert plan.estimate() == pytest.approx(left / 2.0 + 4 * 18.0)
    assert "about 2 min" in plan.table()


def test_time_from_a_pretext_run_on_crops_of_another_size(make_plan, dataset, tmp_path):
    data = dataclasses.asdict(experiment(dataset).data) | {"crop_size": 2 * CROP}
    pretext = dataclasses.replace(
        make_plan().runs[0],
        experiment=experiment(dataset, stage="pretrain", data=data),
        workdir=tmp_path / "pretext",
    )
    leave(pretext, speeds=(3.0,))
    write_model(pretext.workdir / "model")
    plan = make_plan(n=(1,), isl_checkpoint=str(pretext.workdir))
    # A crop of half the side has a quarter of the pixels.
    assert plan.estimate() == pytest.approx(2 * STEPS * BATCH / (4 * 3.0))


def test_nothing_left_takes_no_time(make_plan):
    plan = make_plan(n=(1,), inits=("random",))
    leave(plan.runs[0], step=STEPS, speeds=(2.0,), scored={})
    assert plan.estimate() == 0.0
    assert "time for the rest" not in plan.table()


def test_what_the_report_needs_is_described(make_plan, dataset):
    description = make_plan().description
    assert description["test_crops"] == {
        "size": CROP,
        "per_image": 2,
        "margin": (0, 0, 0, 0),
        "seed": 0,
    }
    assert description["data_root"] == str(dataset.root)
    json.dumps(description)


def test_scores_on_other_crops_are_none_of_the_sweep(make_plan):
    plan = make_plan(n=(1,), inits=("random",), seeds=(0, 1, 2))
    for run, seed in zip(plan.runs, (0, 7, 0), strict=True):
        leave(run, scored={"test_crops": dataclasses.asdict(run.crops) | {"seed": seed}})
    assert [run.state for run in plan.runs] == ["done", "to score", "done"]
    assert [run.name for run in plan.remaining] == ["random_n1_seed1"]


def test_scores_of_another_augmentation_are_none_of_the_sweep(make_plan):
    plan = make_plan(n=(1,), inits=("random",))
    leave(plan.runs[0], scored={"tta": 8})
    assert plan.runs[0].state == "to score"


def test_a_sweep_that_was_scored_on_other_crops_is_not_gone_on_with(dataset, tmp_path):
    pretrain, segment = pair(dataset)

    def plan(seed):
        changed = dataclasses.replace(pretrain, seed=seed)
        return plan_sweep(
            changed, segment, Grid((1,), ("random",), (0,), "paper"), tmp_path / "sweep"
        )

    first = plan(0)
    first.workdir.mkdir()
    (first.workdir / "sweep.json").write_text(json.dumps(first.description))
    plan(7)  # nothing is scored yet
    leave(first.runs[0], step=STEPS, scored={})  # as earlier versions wrote it
    assert plan(0).runs[0].state == "done"
    with pytest.raises(ValueError, match=r"sweep.json: .*other test crops \(seed was 0, now 7\)"):
        plan(7)


@pytest.fixture
def unreachable(monkeypatch):
    """ImageNet weights cannot be had; the encoders that were asked for."""
    asked = []

    def load(source, *, encoder):
        asked.append(encoder)
        raise OSError("no network:\nfetch it elsewhere")

    monkeypatch.setattr(planning.imagenet, "load_imagenet", load)
    return asked


def from_imagenet(dataset, encoder="densenet169"):
    return [
        dataclasses.replace(
            stage,
            init=dataclasses.replace(stage.init, kind="imagenet"),
            model=dataclasses.replace(stage.model, encoder=encoder),
        )
        for stage in pair(dataset)
    ]


@pytest.mark.parametrize("inits", [("random", "isl"), ("imagenet", "isl"), ("isl",)])
def test_random_stands_in_for_weights_that_cannot_be_had(dataset, tmp_path, unreachable, inits):
    stages, grid = from_imagenet(dataset), Grid((1,), inits, (0,))
    plan = plan_sweep(*stages, grid, tmp_path / "sweep", stand_in="random")
    kinds = {run.name: run.experiment.init.kind for run in plan.runs}
    assert kinds["pretrain"] == "random"
    assert set(kinds.values()) <= {"random", "isl"}
    told = {"init": "random", "reason": "no network: fetch it elsewhere"}
    assert plan.description["imagenet_stand_in"] == told
    assert plan.description["pretrain_init"] == "random"
    with pytest.raises(OSError, match="no network"):
        plan_sweep(*stages, grid, tmp_path / "sweep")
    assert set(unreachable) == {"densenet169"}


def test_weights_are_asked_for_only_where_a_run_begins_with_them(dataset, tmp_path, unreachable):
    stages, folder = from_imagenet(dataset), tmp_path / "sweep"
    plan_sweep(*stages, Grid((1,), ("random",), (0,), "paper"), folder)
    write_model(tmp_path / "pretext" / "model")
    grid = Grid((1,), ("random", "isl"), (0,))
    plan_sweep(*stages, grid, folder, isl_checkpoint=str(tmp_path / "pretext"))
    begun = plan_sweep(*pair(dataset), grid, folder).runs[0]
    leave(dataclasses.replace(begun, experiment=stages[0]), step=3)
    plan = plan_sweep(*stages, grid, folder)
    assert plan.runs[0].experiment.init.kind == "imagenet" and not unreachable
    assert plan.runs[0].state == "to resume"
