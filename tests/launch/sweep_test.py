"""A sweep as a user meets it: planned, run, killed, started again, with a run that must fail.

The real commands in processes of their own, on a small network and small images.
"""

import functools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.launch.conftest import ROOT, command_line
from tests.study.conftest import write_dataset

# Two fields are annotated, so that runs with 9 annotated ones fail, before the others run.
_GRID = ["--n=9,1", "--inits=random,isl", "--seeds=0"]
_ONE_DEVICE = {"XLA_FLAGS": ""}  # compiles faster than for the four devices of the other tests
_FAILED = ("random_n9_seed0", "isl_n9_seed0")


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    data = tmp_path_factory.mktemp("sweep") / "data"
    write_dataset(data, "nucleus", size=(64, 64))
    small = {"data.crop_size": 32, "data.crops_per_image": 4, "model.encoder": "tiny"}
    for stage, steps in (("pretrain", 9), ("train", 7)):
        small |= {f"{stage}.num_steps": steps, f"{stage}.checkpoint_every": 3}
        small |= {f"{stage}.log_every": 1}
    return [
        f"--config={ROOT / 'configs' / 'demo.py'}:study=nucleus",
        f"--config.data.root={data}",
        *(f"--config.{name}={value}" for name, value in small.items()),
        *_GRID,
        # The pretext run starts from ImageNet weights unless told otherwise; a test has no network.
        "--config.init.kind=random",
    ]


@pytest.fixture(scope="module")
def sweep(launch, options):
    return functools.partial(launch, "sweep", *options, **_ONE_DEVICE)


def tables(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "report" / "tables").iterdir()}


@pytest.fixture(scope="module")
def finished(sweep, launch, tmp_path_factory):
    """A sweep that ran through, how it ended, and its tables."""
    folder = tmp_path_factory.mktemp("finished")
    ended = sweep("--workdir=S", cwd=folder)
    assert (folder / "S" / "sweep.json").exists(), ended.stderr
    assert launch("report", "--workdir=S", cwd=folder).returncode == 0
    return folder / "S", ended, tables(folder / "S")


def test_a_failed_run_costs_the_others_nothing_and_shows(finished):
    folder, ended, _ = finished
    assert ended.returncode == 1
    failed = [line for line in ended.stderr.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in failed] == list(_FAILED)
    assert "Traceback" not in ended.stderr
    for run in ("runs/random_n1_seed0", "runs/isl_n1_seed0", "pretrain"):
        assert (folder / run / "evaluation" / "summary.json").exists()
    page = (folder / "report" / "index.html").read_text()
    assert "2 of 5 runs have no scores" in page
    for name in _FAILED:
        assert re.search(rf"{name}</code>: failed \(ValueError: .*annotated", page)


def landmarks(sweep: Path) -> list[Path]:
    """What a sweep leaves on its way, relative to its folder: files and checkpoints."""
    found = [path for run in ("pretrain", "runs/*") for path in sweep.glob(f"{run}/checkpoints/*")]
    found += [path for path in sweep.rglob("*.*") if path.suffix in (".json", ".jsonl", ".csv")]
    ours = [path.relative_to(sweep) for path in found]
    last = ("report", "isl_n1_seed0/timing.json")
    return sorted(path for path in ours if not any(name in str(path) for name in last))


def test_killed_at_any_moment_it_ends_with_the_same_tables(
    finished, options, sweep, launch, tmp_path
):
    folder, _, expected = finished
    landmark = tmp_path / "S" / random.choice(landmarks(folder))
    print(f"killed as soon as there is {landmark}")
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command_line("sweep", *options, "--workdir=S"),
        cwd=tmp_path,
        env=os.environ | _ONE_DEVICE,
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,
    )
    while not landmark.exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert sweep("--workdir=S", cwd=tmp_path).returncode == 1
    assert launch("report", "--workdir=S", cwd=tmp_path).returncode == 0
    assert tables(tmp_path / "S") == expected


def test_dry_run_tells_how_far_it_is_and_writes_nothing(finished, sweep, tmp_path):
    planned = sweep("--workdir=new", "--dry_run", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "5 runs: 5 to do" in planned.stdout
    assert "not known until a run has trained here" in planned.stdout
    assert not (tmp_path / "new").exists()
    folder, *_ = finished
    planned = sweep(f"--workdir={folder}", "--dry_run", cwd=tmp_path)
    lines = {line.split()[0]: line for line in planned.stdout.splitlines()}
    assert "9 of 9" in lines["pretrain"] and lines["pretrain"].endswith("done")
    assert lines["isl_n9_seed0"].endswith("failed before")
    assert "3 done, 2 failed before" in planned.stdout
    assert re.search(r"about \d+ min", planned.stdout)


def test_scores_on_other_crops_are_replaced_on_demand_alone(finished, launch, tmp_path):
    folder, *_ = finished
    run = folder / "runs" / "random_n1_seed0"
    summary = (run / "evaluation" / "summary.json").read_text()
    alone = shutil.copytree(run, tmp_path / "W")
    # Earlier versions did not record the crops of a run: the sweep knows them.
    stored = json.loads(summary)
    del stored["test_crops"]
    (run / "evaluation" / "summary.json").write_text(json.dumps(stored))
    for workdir in (alone, run):
        ended = launch("evaluate", f"--workdir={workdir}", "--crop_seed=7", cwd=tmp_path)
        assert ended.returncode == 1
        assert "seed was 0, now 7" in ended.stderr and "--overwrite" in ended.stderr
    assert launch("evaluate", f"--workdir={run}", cwd=tmp_path, **_ONE_DEVICE).returncode == 0
    assert (run / "evaluation" / "summary.json").read_text() == summary
    ended = launch(
        "evaluate",
        f"--workdir={alone}",
        "--crop_seed=7",
        "--overwrite",
        cwd=tmp_path,
        **_ONE_DEVICE,
    )
    assert ended.returncode == 0, ended.stderr
    stored = json.loads((alone / "evaluation" / "summary.json").read_text())
    assert stored["test_crops"]["seed"] == 7


def test_jobs_of_their_own_give_the_same_table(finished, sweep, launch, tmp_path):
    folder, _, expected = finished
    # Runs remember where the pretext run lies: the sweep is finished again in its place.
    run = folder / "runs" / "isl_n1_seed0"
    shutil.move(run, tmp_path / "first")
    ended = sweep(f"--workdir={folder}", "--executor=local", "--parallel=3", cwd=tmp_path)
    assert ended.returncode == 1, ended.stderr
    failed = [line for line in ended.stderr.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in failed] == list(_FAILED)
    assert launch("report", f"--workdir={folder}", cwd=tmp_path).returncode == 0
    assert tables(folder) == expected
    assert len(list((folder / "jobs").glob("*.out"))) == 3  # what was done was not queued


def test_a_length_on_the_command_line_outranks_that_of_the_file(launch, finished, tmp_path):
    data = json.loads((finished[0] / "sweep.json").read_text())["data_root"]
    planned = launch(
        "sweep",
        f"--config={ROOT / 'configs' / 'hela.py'}:init=random",  # sets num_steps
        f"--config.data.root={data}",
        "--config.pretrain.num_samples=20",
        "--config.train.num_epochs=2",
        "--inits=random,isl",
        "--workdir=new",
        "--dry_run",
        cwd=tmp_path,
    )
    lines = {line.split()[0]: line for line in planned.stdout.splitlines()}
    assert "0 of 5 " in lines["pretrain"], planned.stderr
    assert "0 of ? " in lines["random_n1_seed0"]  # as many as the crops make of two epochs


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--workdir=W", "--n=one"], ["--n=one", "whole numbers"]),
        (["--workdir=W", "--inits=magic"], ["magic", "imagenet"]),
        (["--workdir=W", "--executor=slurm"], ["compute_dtype"]),
        (["--workdir=W", "--executor=local", "--executor_options=gpu=1"], ["gpu", "local"]),
    ],
    ids=lambda value: " ".join(value)[-40:],
)
def test_bad_input_is_one_line_and_trains_nothing(sweep, arguments, told, tmp_path):
    ended = sweep(*arguments, cwd=tmp_path)
    assert ended.returncode == 1
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    assert all(word in lines[0] for word in told), lines[0]
    assert not list(tmp_path.glob("W/sweep.json"))
