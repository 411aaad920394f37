"""Pretrained and exported weights files: find, download, verify, cache, read, write."""

import hashlib
import http.client
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import numpy as np
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors.numpy import load_file

from isl_jax.files import resumed_whole
from isl_jax.locks import InUseError, locked
from isl_jax.models.port import variables_from_torch
from isl_jax.models.pth import read_pth

# torchvision's files; the digits are the beginning of the SHA-256, all that it publishes.
_TORCHVISION = {
    "densenet121": "densenet121-a639ec97.pth",
    "densenet161": "densenet161-8d451a50.pth",
    "densenet169": "densenet169-b2777c0a.pth",
    "densenet201": "densenet201-c1103571.pth",
}
_MEGABYTES = {"densenet121": 32, "densenet161": 116, "densenet169": 57, "densenet201": 81}
# Files whose length is known, too: a name's eight digits can be met by trying.
_BYTES = {"densenet121-a639ec97.pth": 32_342_954}
_TORCHVISION_URL = "https://download.pytorch.org/models"
_HUB_FILE = "model.safetensors"
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")
# Where torchvision keeps its own downloads: a file it has fetched is found, and the reverse.
DEFAULT_CACHE = Path("~/.cache/torch/hub/checkpoints")
# How long one process waits for another that fetches the same file.
_WAIT_SECONDS = 600


def imagenet_variables(
    source: str | None = None, *, in_channels: int = 3, encoder: str = "densenet121", **options: Any
) -> dict[str, Any]:
    """Flax variables of the encoder alone, first convolution adapted to `in_channels`.

    `source` and `options` as in `load_imagenet`.
    """
    state_dict = load_imagenet(source, encoder=encoder, **options)
    return variables_from_torch(state_dict, encoder=encoder, in_channels=in_channels)


def load_imagenet(
    source: str | None = None,
    *,
    encoder: str = "densenet121",
    cache_dir: str | Path = DEFAULT_CACHE,
    offline: bool = False,
    hub_endpoint: str | None = None,
    torchvision_url: str = _TORCHVISION_URL,
) -> dict[str, np.ndarray]:
    """State dict of a DenseNet trained on ImageNet, in PyTorch's names and layout.

    `source`: None takes the Hugging Face hub (`timm/densenet121.tv_in1k`) and falls back on
    torchvision's file; `hub` and `torchvision` insist on one; anything else is a path to a
    `.safetensors` or `.pth` file. Both downloads are verified, resumed and cached; `offline` uses
    what the caches hold. Raises ValueError (damaged, unknown) or OSError (not to be had, with the
    address, the size and where to put the file).
    """
    if source not in (None, "hub", "torchvision"):
        return read_state_dict(str(source))
    if encoder not in _TORCHVISION:
        known = ", ".join(_TORCHVISION)
        raise ValueError(f"no ImageNet weights are known for encoder {encoder!r}, only for {known}")
    name = _TORCHVISION[encoder]
    cached = _home(Path(cache_dir)) / name
    reasons = []
    if source != "hub" and cached.exists():
        return read_state_dict(cached)
    if source != "torchvision":
        try:
            return read_state_dict(_from_hub(encoder, offline=offline, endpoint=hub_endpoint))
        except (OSError, HfHubHTTPError) as error:
            reasons.append(f"Hugging Face hub: {_first_line(error)}")
    if source != "hub" and not offline:
        try:
            return read_state_dict(download(f"{torchvision_url}/{name}", cached))
        except OSError as error:
            reasons.append(f"torchvision: {_first_line(error)}")
    raise OSError(
        f"ImageNet weights of {encoder} cannot be had{' offline' if offline else ''}"
        f" ({'; '.join(reasons) or f'{cached} does not exist'}). Download "
        f"{torchvision_url}/{name} ({_MEGABYTES[encoder]} MB) elsewhere and put it at {cached}, or "
        "name any copy by config.init.weights"
    )


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Name → array of a `.safetensors`, `.pth` or `.pt` file; no code in it is executed.

    A digest in the file's name (torchvision's `-a639ec97.pth`) is verified.
    """
    path = _home(Path(path))
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
            with draft.open("ab" if resumed else "wb") as file:
                while chunk := response.read(1 << 20):
                    file.write(chunk)
            length = response.headers.get("Content-Length")
            expected = int(length) + (done if resumed else 0) if length else None
    except urllib.error.HTTPError as error:
        # 416: the part on disk is already the whole.
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise OSError(f"{url}: HTTP status {error.code}") from error
        expected = None
    except (http.client.HTTPException, urllib.error.URLError) as error:
        raise OSError(f"{url}: {_first_line(error)}") from error
    size = draft.stat().st_size
    if expected is not None and size < expected:
        raise OSError(f"{url}: connection lost after {size} bytes; run again to resume")
    try:
        verify_digest(draft, name)
    except ValueError:
        draft.unlink()
        raise


def _from_hub(encoder: str, *, offline: bool, endpoint: str | None) -> Path:
    """The file in the hub's own cache (`HF_HOME`), downloaded, resumed and verified as needed."""
    repository = f"timm/{encoder}.tv_in1k"
    host = _unknown_host(endpoint or huggingface_hub.constants.ENDPOINT)
    try:
        path = huggingface_hub.hf_hub_download(
            repository, _HUB_FILE, local_files_only=offline or bool(host), endpoint=endpoint
        )
    except LocalEntryNotFoundError as error:
        raise (OSError(f"{host} cannot be reached") if host and not offline else error) from error
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


def _home(path: Path) -> Path:
    """`~` resolved; as it is for a user without a home."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
