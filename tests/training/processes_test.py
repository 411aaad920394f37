"""Two processes that talk over loopback train as one does."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

PROGRAM = Path(__file__).with_name("several_processes.py")


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def train(folder, placement, num_processes):
    folder.mkdir(exist_ok=True)
    coordinator = f"localhost:{free_port()}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    programs = [
        subprocess.Popen(
            [sys.executable, *map(str, (PROGRAM, folder, placement, coordinator, *rank))],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ((num_processes, process_id) for process_id in range(num_processes))
    ]
    told = [program.communicate(timeout=600)[1] for program in programs]
    assert [program.returncode for program in programs] == [0] * num_processes, told


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    values = {(line["step"], line["split"]): line["loss"] for line in lines if "loss" in line}
    assert len([line for line in lines if "loss" in line]) == len(values)
    return values


def assert_close(found, expected):
    assert metrics(found).keys() == metrics(expected).keys()
    np.testing.assert_allclose(
        list(metrics(found).values()), list(metrics(expected).values()), rtol=1e-5
    )
    with np.load(found / "kept_5.npz") as left, np.load(expected / "kept_5.npz") as right:
        assert left.files == right.files
        for name in left.files:
            np.testing.assert_allclose(left[name], right[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_two_processes_train_as_one_does_and_their_run_goes_on_in_one(tmp_path):
    one, two, moved = tmp_path / "one", tmp_path / "two", tmp_path / "moved"
    train(one, "host", 1)
    train(two, "device", 2)
    assert_close(two, one)
    # The checkpoint of two processes after five steps, continued by one.
    shutil.copytree(two, moved)
    shutil.rmtree(moved / "checkpoints" / "10")
    train(moved, "host", 1)
    assert_close(moved, one)
