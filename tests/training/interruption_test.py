"""Killed and told to stop at random moments, a run ends where it would have ended anyway."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).with_name("interrupted_training.py")

# docs/training.md has the outcome of 20 and 5.
KILLS, TERMS = 2, 1


def metrics(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    timing = ("images_per_second", "data_wait")
    return [
        {name: value for name, value in line.items() if name not in timing}
        for line in lines
        if line["split"] != "run"
    ]


def check(folder, outcome):
    """Every run in `folder` that went to its end has the numbers of the undisturbed one."""
    expected = np.load(folder / "whole" / "final.npz")
    finished = [folder / "cut", *folder.glob("finished_*")]
    for workdir in finished:
        found = np.load(workdir / "final.npz")
        assert sorted(found.files) == sorted(expected.files)
        for name in expected.files:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
        assert metrics(workdir) == metrics(folder / "whole")
    assert set(outcome["ends"]) <= {-signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGTERM, 0}
    assert outcome["ends"][-1] == 0


@pytest.mark.parametrize("placement", ["host", "device"])
def test_a_run_interrupted_at_random_moments_ends_bit_for_bit_the_same(placement, tmp_path):
    arguments = [str(tmp_path), placement, str(KILLS), str(TERMS), "0"]
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        env=os.environ
        | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},  # one device: a start is cheaper
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ended.returncode == 0, ended.stderr
    check(tmp_path, json.loads(ended.stdout))


if __name__ == "__main__":  # a folder of interrupted_training.py and what it printed
    check(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
