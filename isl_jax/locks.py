"""One command at a time in a folder: a lock file that says who, where and since when.

A lock outlives its process only on paper: what a killed process of this machine left is taken over.
The operating system's own lock on the file tells the dead from the living where there is one, the
number and the start of the process where there is none; of another machine only its user can tell.
"""

import contextlib
import datetime
import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from isl_jax.files import clear_drafts, is_alive, misfit

_NAME = ".isl_jax.lock"
_KEYS = {"pid": int, "host": str, "start": str, "since": str, "command": str}
# How long a lock without words is that of a process which is just writing them.
_WORDLESS_SECONDS = 2.0


class InUseError(OSError):
    """Another command writes into the folder."""


class User(NamedTuple):
    """Who works in a folder: a process, `is_here` on this machine, since when, which command."""

    pid: int
    host: str
    since: str
    command: str
    is_here: bool


def user_of(folder: Path) -> User | None:
    """Who has locked a folder, as its lock tells; None for nobody, and for a dead process.

    Not to be asked by the process that has locked it: to close the file would give the lock away.
    """
    try:
        file = os.open(folder / _NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        words = _read(file)
    finally:
        os.close(file)
    if words is None:
        return None
    is_here = words["host"] == platform.node()
    if is_here and not _runs(words["pid"], words["start"]):
        return None
    return User(words["pid"], words["host"], words["since"], words["command"], is_here)


@contextlib.contextmanager
def locked(
    folder: Path, remedy: str, *, replaces: bool = False, share: str | None = None
) -> Iterator[None]:
    """Keep other commands from writing into `folder` while this one does.

    The folder is made, and taken away again if it stays empty. With `replaces`, it is written
    elsewhere and takes its name at the end: the lock lies beside it. Those that `share` it, under
    different names, may write at the same time, but no one else. Drafts of dead processes are
    cleared. Raises InUseError that names the other process, OSError for a folder that cannot be
    written, or is no folder; both end with the `remedy`.
    """
    _check_target(folder, remedy, replaces=replaces)
    home = folder.parent if replaces else folder
    stem = f".{folder.name}.lock" if replaces else _NAME
    lock = home / (f"{stem}.{share}" if share else stem)
    made = [path for path in (home, *home.parents) if not path.exists()]
    owner, file = os.getpid(), None
    try:
        with _explained(folder, remedy):
            home.mkdir(parents=True, exist_ok=True)
            file = _taken(lock, folder, remedy)
            # Both sides look for the other after they have said that they are there.
            for other in [home / stem] if share else sorted(home.glob(f"{stem}.*")):
                _clear_or_refuse(other, folder, remedy)
        for place in (home, *(() if replaces else _rooms(home))):
            clear_drafts(place)
        yield
    finally:
        if os.getpid() == owner:  # no forked child's to give away
            if file is not None:
                lock.unlink(missing_ok=True)
                os.close(file)
            for path in made:
                with contextlib.suppress(OSError):
                    path.rmdir()


@contextlib.contextmanager
def _explained(folder: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except InUseError:
        raise
    except OSError as error:
        told = error.strerror or error
        raise OSError(f"{folder}: cannot be written ({told}); {remedy}") from error


def _check_target(folder: Path, remedy: str, *, replaces: bool) -> None:
    if folder.is_symlink() and (replaces or not folder.exists()):
        told = "is a link" if folder.exists() else "is a link that leads nowhere"
        raise OSError(f"{folder}: {told}, cannot be written; {remedy}")
    if folder.exists() and not folder.is_dir():
        raise OSError(f"{folder}: is a file, cannot be written into; {remedy}")


def _rooms(folder: Path) -> list[Path]:
    """Folders inside that hold files of ours; images are folders, too, but have a suffix."""
    with os.scandir(folder) as entries:
        return [Path(e.path) for e in entries if "." not in e.name and e.is_dir()]


def _taken(path: Path, folder: Path, remedy: str) -> int:
    """Descriptor of the lock file, made or taken over, with our words in it."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            file = _left_behind(path, folder, remedy)
        if file is not None:
            break
    try:
        _kernel_lock(file)
        words = {"pid": os.getpid(), "host": platform.node(), "start": _start_of(os.getpid())}
        words["since"] = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
        words["command"] = Path(sys.argv[0]).name
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(words).encode(), 0)
    except OSError:
        path.unlink(missing_ok=True)
        os.close(file)
        raise
    return file


def _clear_or_refuse(path: Path, folder: Path, remedy: str) -> None:
    file = _left_behind(path, folder, remedy)
    if file is not None:
        path.unlink(missing_ok=True)
        os.close(file)


def _left_behind(path: Path, folder: Path, remedy: str) -> int | None:
    """Descriptor of the lock file of a dead process, None if it is gone; InUseError otherwise."""
    patience = time.monotonic() + _WORDLESS_SECONDS
    while True:
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        keep = False
        try:
            is_free, words = _kernel_lock(file), _read(file)
            if words is not None or time.monotonic() > patience:
                _refuse_living(words or {}, is_free, path, folder, remedy)
                keep = os.fstat(file).st_ino == path.stat().st_ino
        except FileNotFoundError:
            return None
        finally:
            if not keep:
                os.close(file)
        if keep:
            return file
        time.sleep(0.02)


def _refuse_living(
    words: dict[str, Any], is_free: bool | None, path: Path, folder: Path, remedy: str
) -> None:
    host = words.get("host", platform.node())
    is_here = host == platform.node()
    if is_here and is_free is not False and not (words and _runs(words["pid"], words["start"])):
        return
    told = f"process {words.get('pid', '?')} on {host} since {words.get('since', 'just now')}"
    if words:
        told += f" ({words['command']})"
    if not is_here:
        remedy += f"; if it has died there, remove {path}"
    raise InUseError(f"{folder}: in use by {told}; wait until it has ended, or {remedy}")


def _kernel_lock(file: int) -> bool | None:
    """Whether the kernel gives the file to us; None where it knows no such locks (some NFS)."""
    try:
        # Of the process, not of the descriptor: a forked child does not inherit it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _read(file: int) -> dict[str, Any] | None:
    try:
        words = json.loads(os.pread(file, 4096, 0))
    except (ValueError, RecursionError):
        return None
    return words if misfit(words, _KEYS) is None else None


def _runs(process: int, start: str) -> bool:
    return is_alive(process) and _start_of(process) == start


def _start_of(process: int) -> str:
    """Tells a process from an earlier one of that number, where the system says so."""
    with contextlib.suppress(OSError, IndexError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{boot} {ticks}"
    return ""
