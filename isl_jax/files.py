"""Whole or not at all: the one place that writes files and folders, and reads our own JSON.

What is written appears under its name only when it is complete. An error, a full disk or a killed
process leaves what was there before; drafts are hidden, and nobody takes them for results.
"""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_DRAFT_SUFFIX = ".partial"
# Two threads of one process may write to one name: their drafts must differ.
_numbers = itertools.count()


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a draft's name beside `path`; what is there at the end takes the name `path`.

    Files and folders: the caller makes whichever it wants. After an error nothing is left of the
    draft, and `path` is as it was.
    """
    # The suffix stays: writers choose their format by it. The dot hides the draft from patterns.
    draft = path.with_name(
        f".{path.stem}.{os.getpid()}-{next(_numbers)}{_DRAFT_SUFFIX}{path.suffix}"
    )
    try:
        yield draft
        _take_the_place_of(path, draft)
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(draft) if draft.is_dir() else draft.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def resumed_whole(path: Path, tag: str = "") -> Iterator[Path]:
    """As `written_whole`, of work that goes on: after an error the draft stays.

    The next call with this `path` and `tag` gets the draft of the one before; the tag keeps apart
    what must not be mixed. One process at a time; who knows a draft to be worthless removes it.
    """
    draft = path.with_name(f".{path.stem}.{tag or 'resumed'}{_DRAFT_SUFFIX}{path.suffix}")
    yield draft
    _take_the_place_of(path, draft)


def _take_the_place_of(path: Path, draft: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    draft.replace(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with written_whole(path) as draft:
        draft.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, *, remedy: str) -> Any:
    """Content of a JSON file of ours; ValueError that names it and the remedy if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of the syntax, and of bytes that are no text
        raise ValueError(f"{path}: damaged ({error}); {remedy}") from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a file with one JSON object a line; none where there is no file.

    A line that cannot be read is passed over: the last one of a killed run may be cut.
    """
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def write_json_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, whole or not at all."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Around writing `path` in a run that resumes: OSErrors name it and say how to go on."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: could not be written ({error.strerror or error}); what was there before "
            "stays: make room, then the same command goes on from the last checkpoint"
        ) from error
