"""What a folder of predictions knows: whose its files are, what they were made of, what is done.

`records/<image>.json` says what was made of an image, from which files; it comes last. While the
files are being written, `records/.<image>.begun.json` names them, so that nobody takes them for
images (`ingest.listing.predicted_in`), nor for files of the user, after a run that was killed.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isl_jax.files import write_json

RECORDS = "records"
_BEGUN = ".begun.json"
# A file that outputs depend on: path, size in bytes, time (ns); of folders the digest of all files.
Stamp = list[Any]


@dataclass(frozen=True)
class Record:
    """What was made of an image: `files` of the kinds `outputs`, of `size` (H, W) pixels.

    `inputs` are the stamps of what it was made from, `origins` further files that stand for the
    same image, `written` all files that any run made of it. `spacing` in µm, (y, x).
    """

    name: str
    inputs: list[Stamp]
    outputs: list[str]
    files: list[str]
    fingerprint: str
    size: list[int]
    pixel_size: float | None = None
    num_objects: int | None = None
    spacing: list[float] | None = None
    binning: int = 1
    origins: list[str] | None = None
    written: list[str] | None = None

    @property
    def all_files(self) -> frozenset[str]:
        """Names of all files that were ever written for the image."""
        return frozenset([*self.files, *(self.written or ())])

    @property
    def paths(self) -> frozenset[Path]:
        """All files that are, or were made from, the image."""
        return frozenset(map(Path, [*(stamp[0] for stamp in self.inputs), *(self.origins or ())]))


_CHECKS: Mapping[str, Any] = {
    "name": lambda v: isinstance(v, str),
    "inputs": lambda v: isinstance(v, list) and all(map(_is_stamp, v)),
    "outputs": lambda v: _is_texts(v),
    "files": lambda v: _is_texts(v) and all(Path(name).name == name for name in v),
    "fingerprint": lambda v: isinstance(v, str),
    "size": lambda v: isinstance(v, list) and len(v) == 2 and all(type(n) is int for n in v),
    "pixel_size": lambda v: v is None or isinstance(v, int | float),
    "num_objects": lambda v: v is None or type(v) is int,
    "spacing": lambda v: v is None or (isinstance(v, list) and len(v) == 2),
    "binning": lambda v: type(v) is int,
    "origins": lambda v: v is None or _is_texts(v),
    "written": lambda v: v is None or _is_texts(v),
}


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_stamp(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)


def read_record(folder: Path, name: str) -> Record | None:
    """The record of an image; None where there is none, or a damaged one: the image is due."""
    record = _read(folder / RECORDS / f"{name}.json")
    return record if record and record.name == name else None


def read_records(folder: Path) -> list[Record]:
    """The records of all images in a folder of predictions, whoever made them, in name order."""
    names = {path.stem for path in (folder / RECORDS).glob("*.json") if path.name[0] != "."}
    return [record for name in sorted(names) if (record := read_record(folder, name))]


def _read(path: Path) -> Record | None:
    stored = _json(path)
    known = {key: stored[key] for key in _CHECKS if key in stored}
    if not all(_CHECKS[key](value) for key, value in known.items()):
        return None
    try:
        return Record(**known)
    except TypeError:  # a key that all have is missing
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}


def write_record(folder: Path, record: Record) -> None:
    """Write a record, and take back the claim on its files."""
    before = read_record(folder, record.name)
    written = sorted(record.all_files | (before.all_files if before else frozenset()))
    write_json(folder / RECORDS / f"{record.name}.json", asdict(record) | {"written": written})
    _claim_path(folder, record.name).unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(folder: Path, name: str, files: Sequence[str]) -> Iterator[None]:
    """Around writing files for an image: a claim on them, kept after an error that left some."""
    write_json(_claim_path(folder, name), {"name": name, "files": list(files)})
    try:
        yield
    except BaseException:
        if not any((folder / file).exists() for file in files):
            with contextlib.suppress(OSError):
                _claim_path(folder, name).unlink(missing_ok=True)
        raise


def _claim_path(folder: Path, name: str) -> Path:
    return folder / RECORDS / f".{name}{_BEGUN}"


def files_of(folder: Path, name: str) -> frozenset[str]:
    """Names of the files that runs wrote, or began to write, for an image."""
    record, begun = read_record(folder, name), _json(_claim_path(folder, name)).get("files")
    claims = frozenset(map(str, begun)) if isinstance(begun, list) else frozenset()
    return claims | (record.all_files if record else frozenset())


def stamps(paths: Iterable[Path]) -> list[Stamp]:
    """What tells that inputs have not been replaced; OSError for one that is not there."""
    return [[str(path.absolute()), *_stamp(path)] for path in paths]


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    if not path.is_dir():
        return stat.st_size, stat.st_mtime_ns
    total, digest = 0, hashlib.sha256()
    for parent, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(parent, name)
            inside = file.stat()
            total += inside.st_size
            told = (os.fsencode(file), inside.st_size, inside.st_mtime_ns)
            digest.update(repr(told).encode())
    return total, int.from_bytes(digest.digest()[:6])


def is_another(record: Record, paths: Iterable[Path]) -> Path | None:
    """The file that a record is of, if that still exists and is none of `paths`; else None."""
    mine = {path.absolute() for path in paths}
    if not record.paths.isdisjoint(mine):
        return None
    there = [path for path in sorted(record.paths) if path.exists()]
    real = {path.resolve() for path in mine}
    if not there or any(path.resolve() in real for path in there):
        return None
    return there[0]
