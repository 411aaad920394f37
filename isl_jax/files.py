"""Whole or not at all: the one place that writes files and folders, and reads our own back.

What is written appears under its name only when it is complete. An error, a full disk or a killed
process leaves what was there before; drafts are hidden, and nobody takes them for results. What is
read is held against what it should be: ValueError names a damaged file and the remedy.
"""

import contextlib
import errno
import itertools
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_DRAFT_SUFFIX = ".partial"
# Two threads of one process may write to one name: their drafts must differ.
_numbers = itertools.count()
_HOST = re.sub(r"\W", "", platform.node())[:24] or "host"
_DRAFT = re.compile(rf"\..+\.(\w+)-(\d+)-\d+{re.escape(_DRAFT_SUFFIX)}(?:\.[^.]+)?")
# Errors of a disk, or a share of it, that is full; numpy only says how far it came.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written")
_KINDS = {
    str: "text", int: "a whole number", float: "a finite number", bool: "true or false",
    dict: "a table", list: "a list", None: "null",
}  # fmt: skip


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a draft's name beside `path`; what is there at the end takes the name `path`.

    Files and folders: the caller makes whichever it wants. After an error nothing is left of the
    draft, and `path` is as it was.
    """
    _restore(path)
    draft = _hidden(path, f"{_HOST}-{os.getpid()}-{next(_numbers)}", most=40)
    try:
        with _told_if_full(path):
            yield draft
            _take_the_place_of(path, draft)
    except BaseException:
        _remove(draft)
        raise


@contextlib.contextmanager
def resumed_whole(path: Path, tag: str = "") -> Iterator[Path]:
    """As `written_whole`, of work that goes on: after an error the draft stays.

    The next call with this `path` and `tag` gets the draft of the one before; the tag keeps apart
    what must not be mixed, and drafts of other tags are cleared. One process at a time; who knows a
    draft to be worthless removes it.
    """
    _restore(path)
    draft = _hidden(path, tag or "resumed")
    names = re.escape(_hidden(path, "*").name).replace(r"\*", r"[^.]+")
    for other in path.parent.iterdir() if path.parent.is_dir() else ():
        if other != draft and re.fullmatch(names, other.name) and not _DRAFT.fullmatch(other.name):
            _remove(other)
    with _told_if_full(path):
        yield draft
        _take_the_place_of(path, draft)


@contextlib.contextmanager
def _told_if_full(path: Path) -> Iterator[None]:
    """A full disk, which libraries put into words of their own, as an OSError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL and not _CUT_SHORT.search(str(error)):
            raise
        told = os.strerror(error.errno if error.errno in _FULL else errno.ENOSPC)
        full = OSError(f"{path}: could not be written ({told}); make room and run again")
        full.errno = errno.ENOSPC
        raise full from error


def clear_drafts(folder: Path) -> None:
    """Remove drafts in a folder whose processes have died on this machine."""
    for path in folder.glob(f".*{_DRAFT_SUFFIX}*"):
        match = _DRAFT.fullmatch(path.name)
        if match and match[1] == _HOST and not is_alive(int(match[2])):
            _remove(path)


def is_alive(process: int) -> bool:
    """Whether a process of this machine runs, whoever's it is."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def _hidden(path: Path, tag: str, most: int = 255) -> Path:
    # The suffix stays: writers choose their format by it. The dot hides the draft from patterns.
    return path.with_name(f".{path.stem[:most]}.{tag}{_DRAFT_SUFFIX}{path.suffix}")


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)
        for _ in range(10):  # libraries write on in threads of theirs
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                return
            time.sleep(0.02)


def _take_the_place_of(path: Path, draft: Path) -> None:
    if not path.is_dir() or not draft.exists():
        draft.replace(path)
        return
    before = _hidden(path, "before")
    path.replace(before)  # two renames, which take no time; to remove it first may take minutes
    draft.replace(path)
    _remove(before)


def _restore(path: Path) -> None:
    """What a process left that was killed while one folder took the place of another."""
    before = _hidden(path, "before")
    if before.is_dir():
        _remove(before) if path.exists() else before.replace(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with written_whole(path) as draft:
        draft.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all; bytes of names that are no text are shown."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, *, remedy: str, keys: Mapping[str, Any] | None = None) -> Any:
    """Content of a JSON file of ours; with `keys`, a table that has them (see `misfit`)."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of the syntax, and of bytes that are no text
        raise ValueError(f"{path}: damaged ({error}); {remedy}") from error
    found = None if keys is None else misfit(stored, keys)
    if found:
        raise ValueError(f"{path}: damaged ({found}); {remedy}")
    return stored


def misfit(value: Any, wanted: Any, name: str = "it") -> str | None:
    """What keeps a JSON value from being as `wanted`; None if it is.

    A type (`float`: finite, whole ones too), None, several of these in a tuple, `[kind]` for a list
    of a kind, or a table of keys, of which `"name?"` may be missing.
    """
    if isinstance(wanted, Mapping):
        if not isinstance(value, dict):
            return f"{name} is no table"
        for key, kind in wanted.items():
            inner = key.removesuffix("?")
            if inner not in value and inner == key:
                return f"{name} has no {key!r}"
            if inner in value and (told := misfit(value[inner], kind, inner)):
                return told
        return None
    if isinstance(wanted, list):
        if not isinstance(value, list | tuple):
            return f"{name} is no list"
        return next(
            (t for n, v in enumerate(value) if (t := misfit(v, wanted[0], f"{name}[{n}]"))), None
        )
    if isinstance(wanted, tuple):
        told = [misfit(value, kind, name) for kind in wanted]
        return None if None in told else told[0]
    if wanted is float:
        fits = type(value) in (int, float) and -1e300 < value < 1e300
    elif wanted is int:
        fits = type(value) is int and -(1 << 63) <= value < 1 << 63
    else:
        fits = value is None if wanted is None else type(value) is wanted
    return None if fits else f"{name} is {str(value)[:40]!r}, expected {_KINDS[wanted]}"


def read_json_lines(path: Path, keys: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Tables of a file with one JSON object a line; none where there is no file.

    A line that cannot be read, or lacks one of `keys`, is passed over: the last one of a killed run
    may be cut.
    """
    found = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, RecursionError):
            found.append(json.loads(line))
    return [value for value in found if misfit(value, keys or {}) is None]


def write_json_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, whole or not at all."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Around writing `path` in a run that resumes: OSErrors name it and say how to go on."""
    try:
        yield
    except OSError as error:
        told = error.strerror or (os.strerror(error.errno) if error.errno else error)
        raise OSError(
            f"{path}: could not be written ({told}); what was there before "
            "stays: make room, then the same command goes on from the last checkpoint"
        ) from error
