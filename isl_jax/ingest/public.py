"""Public sets of real microscopy: which files, where they are, and fetching them exactly."""

import errno
import importlib.resources
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

import pooch
import requests

from isl_jax.files import write_text

NOTICE = "SOURCE.txt"

_CHUNK = 1 << 16
_TIMEOUT = (10, 60)  # seconds to connect, seconds between two pieces
_WAITS = (1, 3)  # seconds before each further attempt after a lost connection
# Answers of a server that is busy; any other refusal stays one however often one asks.
_PASSING = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class PublicFile:
    """One file of a public set; `path` is relative to the repository, with /."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class PublicSet:
    """A public set at one revision of its repository; `subsets` are prefixes of paths."""

    name: str
    title: str
    repository: str
    revision: str
    licence: str
    citation: str
    subsets: Mapping[str, Sequence[str]]
    files: tuple[PublicFile, ...]

    @property
    def url(self) -> str:
        """Folder of the files as GitHub serves them."""
        return f"https://raw.githubusercontent.com/{self.repository}/{self.revision}"

    def select(self, subset: str | None = None) -> tuple[PublicFile, ...]:
        """Files of a subset (None: all); ValueError for an unknown one."""
        if subset is None:
            return self.files
        if subset not in self.subsets:
            raise ValueError(
                f"{self.name} has no subset {subset!r}; it has {', '.join(self.subsets) or 'none'}"
            )
        return tuple(f for f in self.files if f.path.startswith(tuple(self.subsets[subset])))

    def notice(self) -> str:
        """Where the set comes from, its licence and what to cite."""
        return (
            f"{self.name}: {self.title}\n"
            f"Source: https://github.com/{self.repository} at {self.revision}\n"
            f"Licence: {self.licence}\n"
            f"Please cite: {self.citation}\n"
        )


def load_registry(path: Path | None = None) -> dict[str, PublicSet]:
    """The public sets known to this package, by name; `path`: another registry file."""
    source = path or importlib.resources.files("isl_jax.ingest") / "public_registry.json"
    try:
        stored = json.loads(source.read_text(encoding="utf-8"))
        return {name: _public_set(name, entry) for name, entry in stored.items()}
    except Exception as error:  # of whatever is not as this package wrote it
        raise ValueError(f"{source}: no registry of public sets ({error})") from error


def _public_set(name: str, entry: dict[str, Any]) -> PublicSet:
    files = tuple(PublicFile(path, **facts) for path, facts in entry.pop("files").items())
    for file in files:
        if {"", ".", ".."} & set(file.path.split("/")) or "\\" in file.path:
            raise ValueError(f"{name}: {file.path!r} of the registry is no path below a folder")
    return PublicSet(name=name, files=files, **entry)


def is_present(file: PublicFile, folder: Path) -> bool:
    """Whether the folder holds this very file, by its checksum."""
    path = Path(folder) / file.path
    return (
        path.is_file()
        and path.stat().st_size == file.bytes
        and pooch.file_hash(str(path)) == file.sha256
    )


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
        registry={file.path: f"sha256:{file.sha256}" for file in files},
        urls={file.path: f"{base}/{quote(file.path)}" for file in files},
    )
    pooch.get_logger().setLevel("WARNING")
    for file in missing:
        _fetch_file(cache, file, on_bytes)
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
                    f"{file.sha256[:12]}…, {file.bytes} bytes; came {download.received} bytes); "
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
