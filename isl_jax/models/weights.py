"""Weights files, fetched and read: downloads verified, resumed and cached; nothing is executed."""

import hashlib
import http.client
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import numpy as np
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors.numpy import load_file

from isl_jax.files import resumed_whole
from isl_jax.locks import InUseError, locked
from isl_jax.models.pth import read_pth

# Files whose length is known, too: a name's eight digits can be met by trying.
_BYTES = {"densenet121-a639ec97.pth": 32_342_954}
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")
# How long one process waits for another that fetches the same file.
_WAIT_SECONDS = 600
# No weights file of a network that is known here is as large.
MOST_BYTES = 2 << 30
# Where weights fetched by `fetched` are kept.
CACHE = Path("~/.cache/isl_jax/weights")
# What an exported model's file is called, in a folder and on the hub.
WEIGHTS = "weights.safetensors"
_URL = re.compile(r"(https?://[^\s#]+)#sha256=([0-9a-f]{64})")
_HUB = re.compile(r"hf:([\w.-]+/[\w.-]+)@([\w./-]+)")


def is_remote(source: str) -> bool:
    """Whether `source` names weights that are elsewhere, as `fetched` takes them; or is a path."""
    return re.match(r"hf:|[a-z][a-z+]+://", source, re.IGNORECASE) is not None


def fetched(
    source: str,
    *,
    cache_dir: str | Path = CACHE,
    offline: bool = False,
    hub_endpoint: str | None = None,
) -> Path:
    """The local file of exported weights that are elsewhere, fetched unless it is there already.

    `source`: `https://SERVER/…/weights.safetensors#sha256=DIGEST` (http, too), or
    `hf:OWNER/NAME@REVISION` for that file of a repository of the Hugging Face hub. Raises
    ValueError (another form, another kind of file, contents that are not those) or OSError (not to
    be had).
    """
    if match := _HUB.fullmatch(source):
        return from_hub(match[1], WEIGHTS, match[2], offline=offline, endpoint=hub_endpoint)
    match = _URL.fullmatch(source)
    if match is None:
        raise ValueError(
            f"{source}: not understood; give https://SERVER/FILE.safetensors#sha256=DIGEST (64 hex "
            "digits, in the card of the export), or hf:OWNER/NAME@REVISION"
        )
    url, digest = match.groups()
    name = Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    if name.suffix != ".safetensors":
        raise ValueError(
            f"{url}: only .safetensors files are taken from elsewhere; others can hold programs"
        )
    stem = re.sub(r"[^\w-]", "_", name.stem)[:60]
    path = home(Path(cache_dir)) / f"{stem}-{digest}.safetensors"
    if offline and not path.exists():
        raise OSError(f"{url}: cannot be had offline; put the file at {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    download(url, path)
    verify_digest(path)
    return path


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Name → array of a `.safetensors`, `.pth` or `.pt` file; no code in it is executed.

    A digest in the file's name (torchvision's `-a639ec97.pth`) is verified.
    """
    path = home(Path(path))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file")
    verify_digest(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except OSError:
            raise
        except Exception as error:  # of its own, and of types that numpy lacks
            raise ValueError(f"{path}: damaged safetensors file ({error})") from error
    if path.suffix in (".pth", ".pt"):
        return read_pth(path)
    raise ValueError(f"{path}: weights are read from .safetensors, .pth or .pt files")


def verify_digest(path: Path, name: str | None = None) -> None:
    """Raise ValueError if `path` contradicts the SHA-256 in its name (or `name`), or its size."""
    match = _DIGEST_IN_NAME.search(name or path.name)
    if match is None:
        return
    size = path.stat().st_size
    if size != _BYTES.get(name or path.name, size):
        raise ValueError(
            f"{path}: damaged or not the genuine file: it has {size} bytes, expected "
            f"{_BYTES[name or path.name]}; delete it and fetch it again"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(match[1]):
        raise ValueError(
            f"{path}: damaged or not the genuine file: its SHA-256 begins {digest[:8]}, expected "
            f"{match[1][:8]}; delete it and fetch it again"
        )


def download(url: str, path: Path) -> Path:
    """Fetch `url` into `path`; an interrupted download is taken up where it stopped.

    The file appears under its name only when whole and verified (see `read_state_dict`). One
    process fetches, others that want the same file wait for it.
    """
    patience = time.monotonic() + _WAIT_SECONDS
    while not path.exists():
        try:
            with locked(path, "fetch it elsewhere", replaces=True), resumed_whole(path) as draft:
                _fetch(url, draft, path.name)
        except InUseError:
            if time.monotonic() > patience:
                raise
            time.sleep(1)
    return path


def _fetch(url: str, draft: Path, name: str) -> None:
    done = draft.stat().st_size if draft.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            # A server that ignores the range sends the file from its beginning, with status 200.
            resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
            length = str(response.headers.get("Content-Length"))
            known = length.isdecimal()
            expected = int(length) + (done if resumed else 0) if known else None
            with draft.open("ab" if resumed else "wb") as file:
                while chunk := response.read(1 << 20):
                    if max(file.tell() + len(chunk), expected or 0) > MOST_BYTES:
                        draft.unlink()
                        raise ValueError(f"{url}: more than {MOST_BYTES >> 20} MiB, no weights")
                    file.write(chunk)
    except urllib.error.HTTPError as error:
        # 416: the part on disk is already the whole.
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise OSError(f"{url}: HTTP status {error.code}") from error
        expected = None
    except (http.client.HTTPException, urllib.error.URLError, ConnectionError, TimeoutError) as e:
        raise OSError(f"{url}: {first_line(e)}; run again to resume") from e
    size = draft.stat().st_size
    if expected is not None and size < expected:
        raise OSError(f"{url}: connection lost after {size} bytes; run again to resume")
    try:
        verify_digest(draft, name)
    except ValueError:
        draft.unlink()
        raise


def from_hub(
    repository: str,
    file: str,
    revision: str | None = None,
    *,
    offline: bool = False,
    endpoint: str | None = None,
) -> Path:
    """A file in the hub's own cache (`HF_HOME`), downloaded, resumed and verified as needed.

    Raises ValueError for one that is damaged, OSError for one that cannot be had.
    """
    host = _unknown_host(endpoint or huggingface_hub.constants.ENDPOINT)
    try:
        path = huggingface_hub.hf_hub_download(
            repository,
            file,
            revision=revision,
            local_files_only=offline or bool(host),
            endpoint=endpoint,
        )
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:  # or no right to it
        told = f"{host} cannot be reached" if host and not offline else first_line(error)
        raise OSError(f"{repository}: {told}") from error
    blob = Path(path).resolve()
    # The hub names a large file in its cache by its SHA-256.
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        verify_digest(blob, f"-{blob.name}.")
    return Path(path)


def _unknown_host(url: str) -> str | None:
    """The host of `url` if its name does not resolve: the hub's client would retry for long."""
    host = urllib.parse.urlsplit(url).hostname
    try:
        if not urllib.request.getproxies():  # a proxy resolves names itself
            socket.getaddrinfo(host, None)
    except OSError:
        return host
    return None


def home(path: Path) -> Path:
    """`path`, `~` resolved; as it is for a user without a home."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def first_line(error: Exception) -> str:
    """What an error says, as one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
