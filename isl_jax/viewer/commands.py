"""The commands that the steps stand for: as words to copy, and as processes that outlive napari."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isl_jax.locks import User, user_of

# What a started process says, in the folder that it works in.
LOG = "napari.log"
# Characters of the end of a log that are read.
_TAIL = 4000


@dataclass(frozen=True)
class CommandLine:
    """One of our commands with its options: `isl-<name> --option=value …`."""

    name: str
    options: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join([f"isl-{self.name}", *self.options])

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
    """A command that was started here; it goes on when napari ends."""

    command: CommandLine
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


def start(command: CommandLine, log: Path | None = None) -> Process:
    """Start a command in a session of its own, so that it outlives whoever started it.

    What it says goes to `log`, or a temporary file.
    """
    if log is None:
        file, name = tempfile.mkstemp(prefix=f"isl-{command.name}-", suffix=".log")
        log = Path(name)
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        running = subprocess.Popen(
            command.words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        os.close(file)
    return Process(command, log, running)


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
