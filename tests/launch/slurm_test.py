"""Job scripts: bash takes them, SLURM sees all their options, and a signal reaches the training."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "launch" / "slurm").glob("*.sbatch"))


def test_there_is_one_for_each_kind_of_job():
    assert [script.stem for script in SCRIPTS] == ["multi_node", "single_node"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_job_script_is_valid_and_comes_back_after_preemption(script):
    checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    lines = script.read_text().splitlines()
    # SLURM stops reading options at the first line that is no comment.
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    options = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert max(options) < first_command
    told = "\n".join(lines[i] for i in options)
    for option in ("--requeue", "--open-mode=append", "--signal=B:TERM@", "--ntasks-per-node=1"):
        assert option in told


def program(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_told_to_stop_it_waits_for_the_checkpoint_and_queues_again(script, tmp_path):
    sleep = shutil.which("sleep")
    training = f"""echo "$@" > asked
trap 'echo saved > saved; exit 143' TERM
touch ready
while true; do {sleep} 0.05; done"""
    program(tmp_path, "isl-train", training)
    program(tmp_path, "srun", 'shift; exec "$@"')
    program(tmp_path, "scontrol", 'test -e saved && echo "$@" > queued')
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "12"}
    job = subprocess.Popen(
        ["bash", script, "configs/cell.py", "DATA", "S"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    while not (tmp_path / "ready").exists():
        assert job.poll() is None
        time.sleep(0.02)
    job.terminate()
    assert job.wait(timeout=60) == 0
    assert (tmp_path / "queued").read_text() == "requeue 12\n"
    assert (tmp_path / "asked").read_text() == "configs/cell.py DATA S\n"
