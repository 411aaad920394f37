"""A command killed at a random moment, then given again; and two of one command at once.

`python -m tests.reliability.kill` does it to every command, 20 times.
"""

import random
import subprocess
from pathlib import Path

import pytest

from tests.reliability.kill import commands, contents, differences, finished, killed, start

PREPARE = commands()["prepare"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """A folder with `given/raw` in it."""
    folder = tmp_path_factory.mktemp("kill")
    (folder / "given").mkdir()
    finished(["simulate", "--out=given/raw", "--study=nucleus", "--fields=2", "--size=160"], folder)
    return folder


def test_prepare_killed_and_given_again(raw, tmp_path):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "given").symlink_to(raw / "given")
    seconds = finished(PREPARE, tmp_path / "whole")
    killed(PREPARE, tmp_path / "cut", seconds * random.Random(0).uniform(0.6, 0.8))
    if not (tmp_path / "cut" / "out").exists():
        finished(PREPARE, tmp_path / "cut")
    assert differences(contents(tmp_path / "whole"), contents(tmp_path / "cut")) == []


def test_two_that_prepare_one_folder(raw, tmp_path):
    (tmp_path / "given").symlink_to(raw / "given")
    both: list[subprocess.Popen] = [start(PREPARE, tmp_path) for _ in range(2)]
    words = [process.communicate(timeout=300)[0].decode() for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], words
    refused = words[[process.returncode for process in both].index(1)]
    # Whoever comes last finds the other at work, or its result.
    assert "out: in use by process" in refused or "out: exists already" in refused
    assert "Traceback" not in refused and (tmp_path / "out" / "dataset.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "out"]
