"""Commands as words and as processes that outlive who started them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from isl_jax.locks import locked, user_of
from isl_jax.viewer.commands import CommandLine, Process, command_line, said, start, stop_user


def test_words_can_be_copied_into_a_shell():
    line = command_line(
        "train", {"workdir": "My runs/W1", "config": None, "dry_run": True, "x": ""}
    )
    assert str(line) == "isl-train '--workdir=My runs/W1' --dry_run"
    assert line.words == [
        sys.executable, "-m", "isl_jax.launch.train", "--workdir=My runs/W1", "--dry_run",
    ]  # fmt: skip


def test_a_started_command_says_how_it_went():
    process = start(CommandLine("report", ("--workdir=nowhere",)))
    assert process.running.wait(120) == process.status == 1
    (line,) = said(process.log)
    assert line.startswith("error: ") and "nowhere" in line


def test_of_a_progress_bar_the_newest_state_is_read(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"begin\r\nstep: 10%\rstep: 20%\rstep: 30%\n\nend")
    assert said(log) == ["begin", "step: 30%", "end"]
    assert said(tmp_path / "none") == []


@pytest.fixture
def worker(tmp_path):
    """A process that has locked a folder, until it is told to stop."""
    code = (
        "import sys, time; from pathlib import Path; from isl_jax.locks import locked\n"
        "with locked(Path(sys.argv[1]), 'wait'): print('in', flush=True); time.sleep(600)"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "W")], stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None and running.stdout.readline() == "in\n"
    yield running
    running.kill()
    running.stdout.close()
    running.wait()


def test_who_works_in_a_folder_is_found_and_stopped(worker, tmp_path):
    user = user_of(tmp_path / "W")
    assert user is not None and user.pid == worker.pid and user.is_here
    assert stop_user(tmp_path / "W") == user
    assert worker.wait(30) == -15
    # What a dead process left is nobody.
    assert user_of(tmp_path / "W") is None and stop_user(tmp_path / "W") is None
    with locked(tmp_path / "W", "wait"):
        pass


def test_of_another_machine_the_lock_alone_tells(tmp_path):
    words = {"pid": os.getpid(), "host": "far-away", "start": "", "since": "now", "command": "x"}
    (tmp_path / ".isl_jax.lock").write_text(json.dumps(words))
    user = user_of(tmp_path)
    assert user is not None and not user.is_here and user.host == "far-away"
    assert stop_user(tmp_path) == user  # and is left alone


def test_a_process_is_asked_to_end():
    running = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    process = Process("isl-train", Path("log"), running)
    assert process.status is None
    process.stop()
    assert running.wait(30) == -15 and process.status == -15
    process.stop()
