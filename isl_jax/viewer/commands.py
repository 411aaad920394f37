"""The commands that the steps stand for: as words to copy, and as processes that outlive napari."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isl_jax.locks import User, user_of

# Characters of the end of a log that are read.
_TAIL = 4000


@dataclass(frozen=True)
class CommandLine:
    """One of our commands with its options: `isl-<name> --option=value …`."""

    name: str
    options: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join([f"isl-{self.name}", *self.options])

    def option(self, name: str) -> str | None:
        """The value of an option; None if it is not given."""
        found = [word for word in self.options if word.startswith(f"--{name}=")]
        return found[-1].partition("=")[2] if found else None

    @property
    def words(self) -> list[str]:
        """What starts it with the Python that runs here, whatever is on the PATH."""
        return [sys.executable, "-m", f"isl_jax.launch.{self.name}", *self.options]


def command_line(name: str, options: Mapping[str, object]) -> CommandLine:
    """`isl-<name>` with `--option=value`; None and empty values are left out, True is a flag."""
    given = {key: value for key, value in options.items() if value not in (None, "", False)}
    words = (f"--{key}" if value is True else f"--{key}={value}" for key, value in given.items())
    return CommandLine(name, tuple(words))


@dataclass
class Process:
    """What was started here, and goes on when napari ends; `told` are its commands."""

    told: str
    log: Path
    running: subprocess.Popen[bytes]

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self.running.poll()

    def stop(self) -> None:
        """Ask it to end: a training saves a checkpoint first."""
        with contextlib.suppress(ProcessLookupError):
            self.running.send_signal(signal.SIGTERM)


def start(command: CommandLine) -> Process:
    """Start a command; what it says goes to a temporary file."""
    file, log = tempfile.mkstemp(prefix=f"isl-{command.name}-", suffix=".log")
    os.close(file)
    return start_process(command.words, Path(log), told=str(command))


def start_process(words: Sequence[str], log: Path, *, told: str) -> Process:
    """Start a process in a session of its own, so that it outlives whoever started it."""
    with log.open("wb") as file:
        running = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Process(told, log, running)


def said(log: Path) -> list[str]:
    """The last lines that a command said; of a progress bar its newest state."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = (line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n"))
    return [line for line in lines if line.strip()]


def stop_user(folder: Path) -> User | None:
    """Ask the process that works in a folder to end, whoever started it; None if there is none."""
    user = user_of(folder)
    if user is not None and user.is_here:
        with contextlib.suppress(ProcessLookupError):
            os.kill(user.pid, signal.SIGTERM)
    return user
