"""Commands one after the other, in a folder of theirs, as one process that goes on by itself.

Started as `python -m isl_jax.viewer.chain FOLDER`; the folder, which holds the plan, stays locked
until the last one has ended, so that it says who works there. The first that fails ends it, and a
SIGTERM is passed on to the one that runs: a training saves a checkpoint first.
"""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from isl_jax.files import read_json, write_json
from isl_jax.locks import locked
from isl_jax.viewer.commands import CommandLine, Process, start_process

# What is done in a folder, and what it says.
PLAN, LOG = "napari.json", "napari.log"
_STOPPED = 128 + signal.SIGTERM


def start_chain(folder: Path, commands: Sequence[CommandLine]) -> Process:
    """Start commands that work below `folder`; what they say goes to `folder/napari.log`."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / PLAN
    write_json(plan, [{"name": one.name, "options": list(one.options)} for one in commands])
    words = [sys.executable, "-m", "isl_jax.viewer.chain", str(folder.absolute())]
    return start_process(words, folder / LOG, told=" && ".join(map(str, commands)))


def planned(folder: Path) -> list[CommandLine]:
    """The commands that were started in a folder last; none if there were none."""
    plan = folder / PLAN
    if not plan.exists():
        return []
    stored = read_json(plan, remedy="remove it")
    return [CommandLine(one["name"], tuple(one["options"])) for one in stored]


def run_chain(folder: Path) -> int:
    """Run them; returns the exit status of the first that failed, or 0."""
    running: list[subprocess.Popen[bytes]] = []
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    with locked(folder, "choose another folder"):
        for command in planned(folder):
            print(command, flush=True)
            running[:] = [subprocess.Popen(command.words, stdin=subprocess.DEVNULL)]
            if stopped:  # between two
                stop()
            status = running[0].wait()
            if status or stopped:
                return _STOPPED if stopped else status
    return 0


if __name__ == "__main__":
    try:
        sys.exit(run_chain(Path(sys.argv[1])))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
