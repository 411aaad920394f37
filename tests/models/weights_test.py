import hashlib
import http.server
import json
import os
import pickle
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from isl_jax.files import resumed_whole
from isl_jax.models import imagenet, weights
from isl_jax.models.heads import build_network
from isl_jax.models.imagenet import imagenet_variables, load_imagenet
from isl_jax.models.port import torch_from_variables
from isl_jax.models.variables import init_variables
from isl_jax.models.weights import download, fetched, is_remote, read_state_dict

COMMIT = "0" * 40


class Files(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, ranges included, with the headers of the Hugging Face hub."""

    def do_HEAD(self) -> None:
        self.respond(with_body=False)

    def do_GET(self) -> None:
        self.respond(with_body=True)

    def respond(self, *, with_body: bool) -> None:
        server: FileServer = self.server  # type: ignore[assignment]
        server.requests.append((self.command, self.path, self.headers.get("Range")))
        body = server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        requested = self.headers.get("Range") if server.ranges else None
        start = int(requested.removeprefix("bytes=").split("-")[0]) if requested else 0
        if start and start >= len(body):
            self.send_error(416)
            return
        digest = hashlib.sha256(body).hexdigest()
        self.send_response(206 if requested else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body[start : server.cut_at])

    def log_message(self, format: str, *args: object) -> None:
        pass


class FileServer(http.server.ThreadingHTTPServer):
    files: dict[str, bytes]
    requests: list[tuple[str, str, str | None]]
    ranges = True
    cut_at: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer(("127.0.0.1", 0), Files)
    server.files, server.requests = {}, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def classifier() -> dict[str, np.ndarray]:
    """State dict with the names and shapes of torchvision's, values random."""
    variables = init_variables(build_network(out_channels=1), in_channels=3, seed=0)
    prefix = "encoder."
    state_dict = {
        name.removeprefix(prefix): array
        for name, array in torch_from_variables(variables).items()
        if name.startswith(prefix)
    }
    return state_dict | {"classifier.weight": np.zeros((4, 1024), np.float32)}


def named_after_digest(body: bytes) -> str:
    return f"weights-{hashlib.sha256(body).hexdigest()[:8]}.pth"


def test_without_a_network_the_hub_is_not_asked_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host, *_):
        raise OSError("Name or service not known")

    def connect(*_, **__):
        raise AssertionError("connected")

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(OSError, match=r"hub\.invalid cannot be reached.*put it at"):
        load_imagenet("hub", cache_dir=tmp_path, hub_endpoint="https://hub.invalid")


def test_hub_download_is_cached_and_found_offline(
    server: FileServer,
    classifier: dict[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_file(classifier, tmp_path / "served.safetensors")
    path = "/timm/densenet121.tv_in1k/resolve/main/model.safetensors"
    server.files[path] = (tmp_path / "served.safetensors").read_bytes()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    options = {"cache_dir": tmp_path / "torch", "hub_endpoint": server.url}
    loaded = load_imagenet(**options)
    assert loaded.keys() == classifier.keys()
    np.testing.assert_array_equal(
        loaded["features.conv0.weight"], classifier["features.conv0.weight"]
    )
    count = len(server.requests)
    assert load_imagenet(offline=True, **options).keys() == classifier.keys()
    assert len(server.requests) == count
    variables = imagenet_variables("hub", in_channels=1, offline=True, **options)
    assert variables["params"]["encoder"]["conv0"]["kernel"].shape == (7, 7, 1, 64)
    assert set(variables["params"]) == {"encoder"}
    blob = next((tmp_path / "hub").rglob("blobs/*"))
    blob.write_bytes(b"damaged" + blob.read_bytes()[7:])
    with pytest.raises(ValueError, match="damaged"):
        load_imagenet("hub", offline=True, **options)


def test_torchvision_is_the_fallback(
    server: FileServer, fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (fixtures / "tiny_densenet_hubstyle.pth").read_bytes()
    name = named_after_digest(body)
    monkeypatch.setitem(imagenet._TORCHVISION, "densenet121", name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    server.files[f"/models/{name}"] = body
    options = {"hub_endpoint": server.url, "torchvision_url": f"{server.url}/models"}
    loaded = load_imagenet(cache_dir=tmp_path, **options)
    assert "features.denseblock1.denselayer1.norm.1.weight" in loaded
    server.files.clear()
    assert load_imagenet(cache_dir=tmp_path, **options).keys() == loaded.keys()


def test_not_to_be_had_says_where_from_how_big_and_where_to(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(OSError, match="cannot be had") as raised:
        load_imagenet(
            cache_dir=tmp_path, hub_endpoint=server.url, torchvision_url=f"{server.url}/models"
        )
    message = str(raised.value)
    assert f"{server.url}/models/densenet121-a639ec97.pth (32 MB)" in message
    assert str(tmp_path / "densenet121-a639ec97.pth") in message
    assert "404" in message
    with pytest.raises(OSError, match="offline"):
        load_imagenet("torchvision", cache_dir=tmp_path, offline=True)


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_is_resumed(
    server: FileServer, tmp_path: Path, ranges: bool
) -> None:
    body = os.urandom(100_000)
    name = named_after_digest(body)
    server.files[f"/{name}"] = body
    server.cut_at = 40_000
    with pytest.raises(OSError, match="run again to resume"):
        download(f"{server.url}/{name}", tmp_path / name)
    assert not (tmp_path / name).exists()
    server.cut_at, server.ranges = None, ranges
    assert download(f"{server.url}/{name}", tmp_path / name).read_bytes() == body
    assert server.requests[-1][2] == "bytes=40000-"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_whole_partial_file_is_taken(server: FileServer, tmp_path: Path) -> None:
    body = os.urandom(1000)
    name = named_after_digest(body)
    server.files[f"/{name}"] = body
    with pytest.raises(KeyboardInterrupt), resumed_whole(tmp_path / name) as draft:
        draft.write_bytes(body)
        raise KeyboardInterrupt
    assert download(f"{server.url}/{name}", tmp_path / name).read_bytes() == body


def test_a_wrong_digest_is_refused_and_removed(server: FileServer, tmp_path: Path) -> None:
    server.files["/weights-00000000.pth"] = b"something else"
    with pytest.raises(ValueError, match="SHA-256"):
        download(f"{server.url}/weights-00000000.pth", tmp_path / "weights-00000000.pth")
    assert list(tmp_path.iterdir()) == []


def test_local_files(fixtures: Path, tmp_path: Path) -> None:
    state_dict = load_imagenet(str(fixtures / "tiny_densenet_torchvision.pth"))
    save_file(state_dict, tmp_path / "same.safetensors")
    again = load_imagenet(str(tmp_path / "same.safetensors"))
    for name, array in state_dict.items():
        np.testing.assert_array_equal(again[name], array)
    with pytest.raises(FileNotFoundError, match=r"absent\.pth: no such"):
        load_imagenet(str(tmp_path / "absent.pth"))
    (tmp_path / "weights.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"\.safetensors, \.pth"):
        read_state_dict(tmp_path / "weights.h5")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "same.safetensors").read_bytes()[:99])
    with pytest.raises(ValueError, match="damaged"):
        read_state_dict(tmp_path / "cut.safetensors")


def test_unknown_encoder() -> None:
    with pytest.raises(ValueError, match="'tiny'"):
        load_imagenet(encoder="tiny")


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("kind", ["legacy", "zip"])
def test_code_in_a_pickle_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.pth"
    payload = pickle.dumps({"weight": Hostile()}, protocol=2)
    if kind == "legacy":
        header = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
        path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in header) + payload)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
    with pytest.raises(ValueError, match=r"asks for (posix|os)\.mkdir"):
        read_state_dict(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("file", ["tiny_densenet_hubstyle.pth", "tiny_densenet_torchvision.pth"])
@pytest.mark.parametrize("keep", [0, 100, 9000, 40_000])
def test_damaged_files_are_one_clear_error(
    fixtures: Path, tmp_path: Path, file: str, keep: int
) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes((fixtures / file).read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cut\.pth: not a plain PyTorch state dict"):
        read_state_dict(path)


def test_a_tensor_cannot_reach_outside_its_storage(fixtures: Path, tmp_path: Path) -> None:
    source = zipfile.ZipFile(fixtures / "tiny_densenet_torchvision.pth")
    path = tmp_path / "reaching.pth"
    with source, zipfile.ZipFile(path, "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("data.pkl"):
                # conv0's strides (147, 49, 7, 1): the first becomes 255.
                assert data.count(b"(K\x93K1K\x07K\x01t") >= 1
                data = data.replace(b"(K\x93K1K\x07K\x01t", b"(K\xffK1K\x07K\x01t", 1)
            archive.writestr(name, data)
    with pytest.raises(ValueError, match="beyond its storage"):
        read_state_dict(path)


def test_the_genuine_imagenet_file(fixtures: Path) -> None:
    source = os.environ.get("ISL_JAX_IMAGENET")
    if not source:
        pytest.skip("no ImageNet weights: name the file by ISL_JAX_IMAGENET")
    state_dict = load_imagenet(source)
    stats = json.loads((fixtures / "densenet121_in1k_tensor_stats.json").read_text())["tensors"]
    ported = torch_from_variables(imagenet_variables(source))
    for name, (mean, std) in stats.items():
        array = state_dict[name] if name.startswith("classifier") else ported[f"encoder.{name}"]
        assert array.mean() == pytest.approx(mean, abs=1e-3), name
        assert array.std(ddof=1) == pytest.approx(std, abs=1e-3), name


def address(server: FileServer, body: bytes, path: str = "/hela/weights.safetensors") -> str:
    server.files[path] = body
    return f"{server.url}{path}#sha256={hashlib.sha256(body).hexdigest()}"


def test_an_address_with_a_checksum_is_fetched_once(server: FileServer, tmp_path: Path) -> None:
    source = address(server, b"weights")
    path = fetched(source, cache_dir=tmp_path)
    assert path.read_bytes() == b"weights" and path.parent == tmp_path
    server.requests.clear()
    assert fetched(source, cache_dir=tmp_path, offline=True) == path and not server.requests
    path.write_bytes(b"weighty")
    with pytest.raises(ValueError, match="delete it and fetch it again"):
        fetched(source, cache_dir=tmp_path)


def test_a_cut_fetch_goes_on_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    body = os.urandom(100_000)
    source = address(server, body)
    server.cut_at = 30_000
    with pytest.raises(OSError, match="run again to resume"):
        fetched(source, cache_dir=tmp_path)
    server.cut_at = None
    assert fetched(source, cache_dir=tmp_path).read_bytes() == body
    assert server.requests[-1][2] == "bytes=30000-"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("https://a.b/w.safetensors", "not understood; give https"),
        ("https://a.b/w.safetensors#sha256=12", "64 hex digits"),
        ("ftp://a.b/w.safetensors#sha256=" + "0" * 64, "not understood"),
        ("file:///w.safetensors#sha256=" + "0" * 64, "not understood"),
        ("hf:lab/cells", "hf:OWNER/NAME@REVISION"),
        ("hf:../cells@main", "cells"),
        ("https://a.b/w.pth#sha256=" + "0" * 64, "others can hold programs"),
        ("https://a.b/w.pkl?f=.safetensors#sha256=" + "0" * 64, "others can hold programs"),
    ],
)
def test_addresses_that_are_not_asked(source: str, told: str, tmp_path: Path) -> None:
    assert is_remote(source)
    with pytest.raises(ValueError, match=told) as caught:
        fetched(source, cache_dir=tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_paths_are_not_addresses() -> None:
    assert not any(map(is_remote, ("W0", "/data/W0", "../hf:x", "C:/W0", "a.safetensors")))


def test_contents_that_are_not_those_are_not_kept(server: FileServer, tmp_path: Path) -> None:
    source = address(server, b"weights")
    server.files["/hela/weights.safetensors"] = b"\x80\x04pickle."
    with pytest.raises(ValueError, match="not the genuine file"):
        fetched(source, cache_dir=tmp_path)
    with pytest.raises(OSError, match="HTTP status 404"):
        fetched(source.replace("hela", "gone"), cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_too_large_is_not_fetched(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "MOST_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="more than 1 MiB, no weights"):
        fetched(address(server, bytes(3 << 20)), cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_name_of_the_hub(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    body = os.urandom(5000)
    server.files["/lab/cells/resolve/v1.0/weights.safetensors"] = body
    path = fetched("hf:lab/cells@v1.0", hub_endpoint=server.url)
    assert path.read_bytes() == body and path.name == "weights.safetensors"
    with pytest.raises(OSError, match=r"lab/others: .*cannot find the requested files"):
        fetched("hf:lab/others@v1.0", hub_endpoint=server.url)
