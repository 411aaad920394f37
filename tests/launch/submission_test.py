"""Runs of a sweep as jobs: what a queue is asked for, by a stand-in for its commands."""

import json
import sys

import pytest

from isl_jax.launch.submission import submit
from isl_jax.study.grid import Grid
from isl_jax.study.planning import plan_sweep
from tests.study.conftest import pair, write_dataset

_SBATCH = """#!/bin/sh
number=$(($(ls "{folder}" | wc -l) + 100))
cp "$1" "{folder}/$number.sh"
echo "Submitted batch job $number"
"""


@pytest.fixture
def plan(tmp_path):
    dataset = write_dataset(tmp_path / "data", "nucleus", size=(64, 64))
    grid = Grid(n=(1, 2), inits=("random", "isl"), seeds=(0,), comparison="paper")
    return plan_sweep(*pair(dataset, "nucleus"), grid, tmp_path / "S")


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Folder that gets every script handed to `sbatch`, by job number."""
    folder, commands = tmp_path / "queue", tmp_path / "bin"
    folder.mkdir()
    commands.mkdir()
    for name in ("sbatch", "srun"):
        (commands / name).write_text(_SBATCH.format(folder=folder))
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(commands), prepend=":")
    return folder


def test_an_array_waits_for_the_pretext_run(plan, queue, capsys):
    options = {"slurm_partition": "gpu", "gpus_per_node": 1, "timeout_min": 240}
    assert submit(plan, cluster="slurm", options=options, parallel=3) == []
    pretext, array = (queue / "100.sh").read_text(), (queue / "101.sh").read_text()
    assert len(list(queue.iterdir())) == 2
    for script in (pretext, array):
        assert "#SBATCH --partition=gpu" in script and "#SBATCH --time=240" in script
        assert "#SBATCH --gpus-per-node=1" in script
    assert "--array" not in pretext and "--dependency" not in pretext
    assert "#SBATCH --array=0-3%3" in array and "#SBATCH --dependency=afterany:100" in array
    told = capsys.readouterr().out
    assert "pretrain: job 100" in told and "isl_n2_seed0: job 101_3" in told
    assert json.loads((plan.workdir / "sweep.json").read_text())["n"] == [1, 2]


def test_what_is_done_is_not_queued(plan, queue):
    for run in plan.runs[:-1]:
        (run.workdir / "evaluation").mkdir(parents=True)
        score = {"mean": 0.5, "std": 0.1, "count": 1}
        summary = {"metric": "map", "crops": score, "fields": score}
        (run.workdir / "evaluation" / "summary.json").write_text(json.dumps(summary))
        (run.workdir / "config.json").write_text(json.dumps(run.experiment.to_json()))
    submit(plan, cluster="slurm", options={})
    (script,) = queue.iterdir()
    assert "--dependency" not in script.read_text() and "--array" not in script.read_text()


def test_without_a_cluster_or_submitit_it_says_so(plan, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=r"--executor=slurm: "):
        submit(plan, cluster="slurm", options={})
    with pytest.raises(ValueError, match=r"nonsense"):
        submit(plan, cluster="local", options={"nonsense": 1})
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r"needs submitit.*isl-jax\[slurm\]"):
        submit(plan, cluster="slurm", options={})
    assert not (plan.workdir / "sweep.json").exists()
