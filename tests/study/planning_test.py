"""The plan of a sweep: what it will run, how far that is, and how long the rest takes."""

import dataclasses
import json

import pytest

from isl_jax.study.planning import Grid, plan_sweep
from tests.study.conftest import experiment, pair

STEPS, BATCH, CROP = 6, 4, 64  # of the experiments of these tests


@pytest.fixture
def dataset(make_dataset, tmp_path):
    return make_dataset(tmp_path / "data", "cell")


@pytest.fixture
def make_plan(dataset, tmp_path):
    def make(n=(1, 2), inits=("random", "isl"), seeds=(0,), **options):
        return plan_sweep(*pair(dataset), Grid(n, inits, seeds), tmp_path / "sweep", **options)

    return make


def leave(run, *, step=0, speeds=(), seconds=None, scored=False):
    """What a run would have left in its folder."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    (run.workdir / "config.json").write_text(json.dumps(dataclasses.asdict(run.experiment)))
    lines = [json.dumps({"step": 1, "split": "train", "loss": 1.0})]
    lines += [json.dumps({"step": 2, "split": "train", "images_per_second": v}) for v in speeds]
    (run.workdir / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 3, "spl']))
    if step:
        (run.workdir / "checkpoints" / str(step)).mkdir(parents=True)
        (run.workdir / "checkpoints" / f"{step + 1}.orbax-checkpoint-tmp").mkdir()
    if seconds is not None:
        timing = {"seconds": seconds, "steps": STEPS}
        (run.workdir / "timing.json").write_text(json.dumps(timing))
    if scored:
        (run.workdir / "evaluation").mkdir()
        (run.workdir / "evaluation" / "summary.json").write_text("{}")


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


def test_no_pretext_run_without_isl_or_with_weights_that_are_there(make_plan, tmp_path):
    assert all(run.name != "pretrain" for run in make_plan(inits=("random",)).runs)
    with pytest.raises(FileNotFoundError, match="pretext: holds no model"):
        make_plan(isl_checkpoint=tmp_path / "pretext")
    (tmp_path / "pretext" / "model").mkdir(parents=True)
    (tmp_path / "pretext" / "model" / "model.json").write_text("{}")
    plan = make_plan(isl_checkpoint=tmp_path / "pretext")
    assert all(run.name != "pretrain" for run in plan.runs)
    assert plan.runs[1].experiment.init.checkpoint == str(tmp_path / "pretext")


def test_states_are_read_from_what_the_runs_left(make_plan, dataset):
    plan = make_plan()
    pretrain, random1, isl1, random2, _ = plan.runs
    leave(pretrain, step=STEPS, scored=True)
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
    leave(pretrain, step=STEPS, speeds=(1.0, 2.0, 8.0), seconds=30.0, scored=True)
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
    (pretext.workdir / "model").mkdir()
    (pretext.workdir / "model" / "model.json").write_text("{}")
    plan = make_plan(n=(1,), isl_checkpoint=pretext.workdir)
    # A crop of half the side has a quarter of the pixels.
    assert plan.estimate() == pytest.approx(2 * STEPS * BATCH / (4 * 3.0))


def test_nothing_left_takes_no_time(make_plan):
    plan = make_plan(n=(1,), inits=("random",))
    leave(plan.runs[0], step=STEPS, speeds=(2.0,), scored=True)
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
