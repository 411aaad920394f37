"""A full and a read-only disk under every command, then room, then the same command again.

    mount -t tmpfs -o size=300m none /mnt/small
    python -m tests.reliability.disk /mnt/small [COMMAND …]

The folder is on a small file system of its own. It is filled but for 0, 1, 10, 50 and 90 % of what
the command writes; then it is made read-only (needs root). Each time the command must end with one
line that says so, without a traceback, and do its work afterwards as if nothing had been.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.reliability.kill import commands, contents, differences, finished, fresh, given, start

_SHARES = (0.0, 0.01, 0.1, 0.5, 0.9)
_SAID = re.compile(r"[Nn]o space left|Read-only file system|[Dd]isk quota")


def _fresh(root: Path, name: str, given_by: Path) -> Path:
    """A folder for a trial, without the results that the command is to write."""
    folder = fresh(root, name, given_by)
    for results in ("report",) if name == "report" else ("runs/random_n1_seed0/evaluation",):
        shutil.rmtree(folder / "out" / results, ignore_errors=True)
    return folder


def _bytes(folder: Path) -> int:
    """What a command's results take, in whole pages."""
    return sum(-(-p.stat().st_size // 4096) * 4096 for p in folder.rglob("*") if p.is_file())


def _run(arguments: list[str], folder: Path) -> tuple[int, str]:
    process = start(arguments, folder)
    words, _ = process.communicate(timeout=600)
    return process.returncode, words.decode(errors="replace")


def _verdict(code: int, words: str) -> str:
    """Empty if a command that could not write said so as it should."""
    if "Traceback" in words:
        return "traceback: " + words.strip().splitlines()[-1]
    if code == 0:
        return ""  # what it writes fitted after all
    return "" if _SAID.search(words) else "no word of the disk: " + words.strip()[-300:]


def trial(root: Path, name: str, given_by: Path) -> Iterator[tuple[str, int, str, str]]:
    """(disk, exit status, last line, fault) of a command on a full and a read-only disk."""
    arguments = commands()[name]
    folder = _fresh(root, name, given_by)
    before = _bytes(folder)
    finished(arguments, folder)
    expected, written = contents(folder), _bytes(folder) - before
    for share in _SHARES:
        folder = _fresh(root, name, given_by)
        stopper = root / "stopper"
        with stopper.open("wb") as file:
            file.truncate()
            room = shutil.disk_usage(root).free - int(share * written)
            file.write(b"\0" * max(room, 0))
        code, words = _run(arguments, folder)
        stopper.unlink()
        wrong = _verdict(code, words) or _again(arguments, folder, expected)
        yield f"{share:.0%} of {written >> 10} KiB", code, words.strip().splitlines()[-1], wrong
    folder = _fresh(root, name, given_by)
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    code, words = _run(arguments, folder)
    subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
    wrong = _verdict(code, words) or _again(arguments, folder, expected)
    if code == 0:
        wrong = "succeeded on a read-only disk"
    yield "read-only", code, words.strip().splitlines()[-1], wrong


def _again(arguments: list[str], folder: Path, expected: dict[str, str]) -> str:
    """What is not as it should be once there is room."""
    if arguments[0] == "prepare" and (folder / "out").exists():
        return "; ".join(differences(expected, contents(folder)))
    try:
        finished(arguments, folder)
    except AssertionError as error:
        return f"again: {error}"
    return "; ".join(differences(expected, contents(folder)))


def main(arguments: list[str]) -> int:
    """All commands."""
    root = Path(arguments[0]).absolute()
    beside = Path("runs/kill").absolute()
    beside.mkdir(parents=True, exist_ok=True)
    given(beside)
    wrong = 0
    print("| command | room | exit | last line | fault |\n|---|---|---|---|---|")
    for name in arguments[1:] or commands():
        for disk, code, line, fault in trial(root, name, beside / "given"):
            print(f"| {name} | {disk} | {code} | {line[:160]} | {fault[:300]} |", flush=True)
            wrong += bool(fault)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
