"""One command at a time in a folder; what the dead left is taken over."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from isl_jax.files import written_whole
from isl_jax.locks import InUseError, locked

_HOLDER = """
import sys, time
from pathlib import Path
from isl_jax.locks import locked
folder, share, replaces = Path(sys.argv[1]), sys.argv[2] or None, sys.argv[3] == "replaces"
try:
    with locked(folder, "choose another --out", share=share, replaces=replaces):
        print("in", flush=True)
        sys.stdin.read()
except OSError as error:
    print(error, flush=True)
"""


def hold(folder: Path, share: str = "", kind: str = "") -> subprocess.Popen:
    """A process that holds a lock until its standard input ends; its first line is read."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder), share, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    process.word = process.stdout.readline().strip()  # pyright: ignore
    return process


@pytest.mark.parametrize("kind", ["", "replaces"])
def test_the_second_is_told_who_is_in(tmp_path, kind):
    folder = tmp_path / "new" / "out"
    first = hold(folder, kind=kind)
    assert first.word == "in"
    told = rf"out: in use by process {first.pid} on {platform.node()} since 20.*choose another"
    with (
        pytest.raises(InUseError, match=told),
        locked(folder, "choose another --out", replaces=bool(kind)),
    ):
        pass
    first.communicate("")
    with locked(folder, "x", replaces=bool(kind)):
        pass
    assert list(tmp_path.iterdir()) == []  # nothing was written, nothing is left


@pytest.mark.parametrize("kind", ["", "replaces"])
def test_what_a_killed_process_left_is_taken_over_and_cleared(tmp_path, kind):
    folder = tmp_path / "out"
    dead = hold(folder, kind=kind)
    draft = (tmp_path if kind else folder) / f".a.{platform.node()}-{dead.pid}-0.partial.json"
    draft.write_text("half")
    alive = draft.with_name(f".b.{platform.node()}-{os.getpid()}-0.partial.json")
    alive.write_text("another's")
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    with locked(folder, "x", replaces=bool(kind)):
        assert not draft.exists() and alive.exists()
    assert list(draft.parent.iterdir()) == [alive]


def test_a_number_that_another_process_has_now_is_no_lock(tmp_path):
    words = {"pid": os.getpid(), "host": platform.node(), "start": "x", "since": "y"}
    lock = tmp_path / ".isl_jax.lock"
    lock.write_text(json.dumps(words | {"command": "isl-train"}))
    with locked(tmp_path, "x"):
        assert json.loads(lock.read_text())["start"] != "x"


def test_of_another_machine_only_its_user_can_tell(tmp_path):
    words = {"pid": 1, "host": "elsewhere", "start": "x", "since": "y", "command": "isl-train"}
    lock = tmp_path / ".isl_jax.lock"
    lock.write_text(json.dumps(words))
    told = rf"process 1 on elsewhere since y .isl-train.*if it has died there, remove {lock}"
    with pytest.raises(InUseError, match=told), locked(tmp_path, "x"):
        pass
    assert lock.exists()


def test_a_lock_without_words_is_that_of_a_killed_process(tmp_path):
    (tmp_path / ".isl_jax.lock").touch()
    began = time.monotonic()
    with locked(tmp_path, "x"):
        assert 1 < time.monotonic() - began < 10  # it might have been about to write them


def test_shards_write_side_by_side_and_nobody_else(tmp_path):
    first, second = hold(tmp_path, "0-of-2"), hold(tmp_path, "1-of-2")
    assert first.word == second.word == "in"
    for share in (None, "0-of-2"):
        with pytest.raises(InUseError), locked(tmp_path, "x", share=share):
            pass
    for process in (first, second):
        process.communicate("")
    whole = hold(tmp_path)
    with pytest.raises(InUseError), locked(tmp_path, "x", share="0-of-2"):
        pass
    whole.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_of_many_at_once_one_is_in(tmp_path):
    processes = [hold(tmp_path / "out", kind="replaces") for _ in range(3)]
    assert sorted(p.word == "in" for p in processes) == [False, False, True]
    for process in processes:
        process.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_where_the_kernel_has_no_locks_the_process_tells(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    with locked(tmp_path, "x"):
        told = f"in use by process {os.getpid()}"
        with pytest.raises(InUseError, match=told), locked(tmp_path, "x"):
            pass
    words = {"pid": 2**22 + 1, "host": platform.node(), "start": "", "since": "", "command": ""}
    (tmp_path / ".isl_jax.lock").write_text(json.dumps(words))
    with locked(tmp_path, "x"):
        pass


# The child ends at once: nothing of jax, whose threads it lacks, is touched.
@pytest.mark.filterwarnings("ignore:os.fork")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_forked_child_does_not_give_the_lock_away(tmp_path):
    with locked(tmp_path, "x"):
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                raise SystemExit
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(InUseError), locked(tmp_path, "x"):
            pass


@pytest.mark.parametrize("replaces", [False, True])
def test_links_and_files_are_refused_before_the_work(tmp_path, replaces):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    names = ["file", "dangling", *(["link"] if replaces else [])]
    for name in names:
        with (
            pytest.raises(OSError, match=rf"{name}: is a .*choose another --out"),
            locked(tmp_path / name, "choose another --out", replaces=replaces),
        ):
            pass
    if not replaces:
        with locked(tmp_path / "link", "x"):
            assert (tmp_path / "folder" / ".isl_jax.lock").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    told = r"out: cannot be written \(No space left on device\); choose"
    with pytest.raises(OSError, match=told), locked(tmp_path / "out", "choose another --out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_stays(tmp_path):
    with locked(tmp_path / "a" / "b", "x", replaces=True), written_whole(tmp_path / "a/b") as draft:
        draft.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]
