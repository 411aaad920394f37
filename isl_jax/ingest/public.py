"""Fetching public sets of real microscopy exactly: every file by its checksum."""

import dataclasses
import errno
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

import pooch
import requests

from isl_jax.files import misfit, read_json, write_json, write_text
from isl_jax.ingest.registry import PublicFile, PublicSet, checked_paths, load_registry

__all__ = ["PublicFile", "PublicSet", "fetch", "is_present", "listed", "load_registry"]

NOTICE = "SOURCE.txt"
# What a set held when it was first fetched into a folder.
CHECKSUMS = "CHECKSUMS.json"
# The list of a record's files, as Zenodo answers; on a mirror it lies beside them.
_LISTING = "record.json"
_RECORD = {"files": [{"key": str, "size": int, "checksum": str}]}
_CHECKSUMS = {"record": str, "files": [{"path": str, "sha256": str, "bytes": int, "md5": str}]}

_CHUNK = 1 << 16
_TIMEOUT = (10, 60)  # seconds to connect, seconds between two pieces
_WAITS = (1, 3)  # seconds before each further attempt after a lost connection
# Answers of a server that is busy; any other refusal stays one however often one asks.
_PASSING = (408, 429, 500, 502, 503, 504)


def is_present(file: PublicFile, folder: Path) -> bool:
    """Whether the folder holds this very file, by its checksum."""
    path = Path(folder) / file.path
    return (
        path.is_file()
        and path.stat().st_size == file.bytes
        and pooch.file_hash(str(path), alg=file.checksum.split(":")[0])
        == file.checksum.split(":")[1]
    )


def listed(public_set: PublicSet, out: Path | None, base_url: str | None = None) -> PublicSet:
    """The set with its files: as registered, as first fetched into `out`, or as its record says.

    Raises ConnectionError, ValueError or OSError in one line.
    """
    if public_set.files:
        return public_set
    name, kept = public_set.name, out and Path(out) / CHECKSUMS
    if kept and kept.is_file():
        stored = read_json(kept, remedy="remove it and fetch again", keys=_CHECKSUMS)
        if stored["record"] != public_set.revision:
            raise ValueError(f"{kept}: of record {stored['record']}; choose another --out")
        files = (PublicFile(**facts) for facts in stored["files"])
    else:
        api = f"https://zenodo.org/api/records/{public_set.revision}"
        record = _answer(f"{base_url.rstrip('/')}/{_LISTING}" if base_url else api)
        files = (
            PublicFile(item["key"], "", item["size"], item["checksum"].partition("md5:")[2])
            for item in record["files"]
        )
    return dataclasses.replace(public_set, files=checked_paths(name, tuple(files)))


def _answer(url: str) -> dict[str, Any]:
    """The list of a record's files."""
    parts = urlsplit(url)
    try:
        if parts.scheme == "file":
            return read_json(Path(unquote(parts.path)), remedy="mirror it again", keys=_RECORD)
        response = requests.get(url, timeout=_TIMEOUT)
        response.raise_for_status()
        record = response.json()
    except requests.RequestException as error:
        status = None if error.response is None else error.response.status_code
        raise ConnectionError(_lost(url, status, error)) from None
    if told := misfit(record, _RECORD):
        raise ValueError(f"{url}: not the list of a record's files ({told}); try again later")
    return record


def _keep_checksums(public_set: PublicSet, files: Sequence[PublicFile], out: Path) -> None:
    """Write what has been fetched of a set that was not yet seen: from now on it is known."""
    known = {file.path: file for file in public_set.files if file.sha256}
    for file in files:
        digest = file.sha256 or pooch.file_hash(str(out / file.path))
        known[file.path] = dataclasses.replace(file, sha256=digest)
    facts = [dataclasses.asdict(file) for file in known.values()]
    write_json(out / CHECKSUMS, {"record": public_set.revision, "files": facts})


def fetch(
    public_set: PublicSet,
    files: Sequence[PublicFile],
    out: Path,
    *,
    base_url: str | None = None,
    on_bytes: Callable[[int], object] = lambda _: None,
) -> tuple[PublicFile, ...]:
    """Bring files of a set into `out`, under their paths; returns those that had to be fetched.

    Files that are there are kept, a file with other contents is replaced. Each is written under a
    temporary name and renamed once its SHA-256 is right, so that after an interruption the same
    call goes on where it stopped. `base_url` (http://, https:// or file://) is a mirror of the
    repository's folders. `on_bytes` is called with the size of each piece that arrives, negative
    when an attempt was lost. Source, licence and citation are written to `out`/SOURCE.txt.

    A wrong checksum is fetched once again, a lost connection twice. Raises ConnectionError,
    ValueError or OSError in one line.
    """
    out = Path(out)
    base = (base_url or public_set.url).rstrip("/")
    if urlsplit(base).scheme not in ("http", "https", "file"):
        raise ValueError(f"base URL {base!r} is none of http://…, https://… and file:///…")
    missing = [file for file in files if not is_present(file, out)]
    _check_space(out, sum(file.bytes for file in missing))
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / NOTICE, public_set.notice())
    cache = pooch.create(
        path=str(out),
        base_url=base,
        registry={file.path: file.checksum for file in files},
        urls={file.path: f"{base}/{quote(file.path)}" for file in files},
    )
    pooch.get_logger().setLevel("WARNING")
    for file in missing:
        _fetch_file(cache, file, on_bytes)
    if public_set.is_record:
        _keep_checksums(public_set, files, out)
    return tuple(missing)


def _fetch_file(cache: pooch.Pooch, file: PublicFile, on_bytes: Callable[[int], object]) -> None:
    """One file, with further attempts where they can help."""
    url, waits, damaged = cache.get_url(file.path), list(_WAITS), False
    while True:
        download = _Download(on_bytes)
        try:
            cache.fetch(file.path, downloader=cast(Any, download))
            return
        except requests.RequestException as error:
            on_bytes(-download.received)
            status = None if error.response is None else error.response.status_code
            if status is not None and status not in _PASSING:
                raise ConnectionError(
                    f"{url}: the server answers {status}; the file has moved or access is refused, "
                    "try a mirror with --base_url"
                ) from None
            if not waits:
                raise ConnectionError(_lost(url, status, error)) from None
            time.sleep(waits.pop(0))
        except ValueError:  # pooch's word for a wrong checksum
            on_bytes(-download.received)
            if damaged:
                raise ValueError(
                    f"{url}: arrived twice with contents other than those registered (SHA-256 "
                    f"{file.checksum[7:19]}…, {file.bytes} bytes; came {download.received} bytes); "
                    "nothing was kept, try again later or another --base_url"
                ) from None
            damaged = True
        except OSError as error:
            raise _unwritten(cache.abspath / file.path, url, error) from None


def _lost(url: str, status: int | None, error: Exception) -> str:
    attempts = len(_WAITS) + 1
    if status is not None:
        return f"{url}: the server answered {status} {attempts} times; try again later"
    reason = "no answer in time" if isinstance(error, requests.Timeout) else "connection failed"
    return (
        f"{url}: {reason}, {attempts} attempts; check the network (or the proxy in HTTPS_PROXY), "
        "or fetch elsewhere and give the folder with --base_url=file:///FOLDER. Files that came "
        "are kept: the same command goes on"
    )


def _unwritten(path: Path, url: str, error: OSError) -> OSError:
    if error.errno == errno.ENOSPC:
        return OSError(f"{path}: the disk is full; free some space, the same command goes on")
    if isinstance(error, FileNotFoundError) and urlsplit(url).scheme == "file":
        return FileNotFoundError(f"{url}: the mirror has no such file")
    return OSError(f"{path}: cannot be written from {url} ({error.strerror or error})")


class _Download:
    """What pooch calls to bring a URL into its temporary file."""

    def __init__(self, on_bytes: Callable[[int], object]):
        self.received = 0
        self._on_bytes = on_bytes

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        parts = urlsplit(url)
        with Path(output_file).open("wb") as output:
            if parts.scheme == "file":
                with Path(unquote(parts.path)).open("rb") as source:
                    while piece := source.read(_CHUNK):
                        self._write(output, piece)
                return
            # identity: a server that compresses on the way would hide how much is to come.
            headers = {"Accept-Encoding": "identity"}
            with requests.get(url, stream=True, timeout=_TIMEOUT, headers=headers) as response:
                response.raise_for_status()
                for piece in response.iter_content(_CHUNK):
                    self._write(output, piece)

    def _write(self, output: Any, piece: bytes) -> None:
        output.write(piece)
        self.received += len(piece)
        self._on_bytes(len(piece))


def _check_space(out: Path, needed: int) -> None:
    """OSError before anything is fetched if the disk cannot hold it."""
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise OSError(
            f"{out}: {needed / 1e6:.0f} MB are to be fetched, but the disk has {free / 1e6:.0f} MB "
            "free; free some space or choose another --out"
        )
