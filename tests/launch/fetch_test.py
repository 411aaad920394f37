"""The command that fetches public sets: what it says, and how it ends."""

import functools

import numpy as np
import pytest

from isl_jax.data.store import open_dataset
from isl_jax.ingest.public import load_registry
from tests.ingest.file_server import closed_url, serve

PAIR = ["--dataset=deepcell2016", "--subset=hela_pair"]


@pytest.fixture
def fetch(launch):
    return functools.partial(launch, "fetch")


def test_dry_run_lists_sizes_and_terms_and_fetches_nothing(fetch, tmp_path):
    ended = fetch(*PAIR, "--out=raw", "--dry_run", f"--base_url={closed_url()}", cwd=tmp_path)
    assert ended.returncode == 0 and not ended.stderr and not list(tmp_path.iterdir())
    files = load_registry()["deepcell2016"].select("hela_pair")
    for file in files:
        assert f"{file.bytes:,}  {file.path}\n" in ended.stdout
    assert "8.1 MB in 10 files, 8.1 MB in 10 to fetch" in ended.stdout
    assert "Licence: not stated" in ended.stdout and "Van Valen" in ended.stdout


def test_no_network_is_one_line_and_status_1(fetch, tmp_path):
    ended = fetch(*PAIR, "--out=raw", f"--base_url={closed_url()}", cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1 and "check the network" in ended.stderr


def test_a_mirror_with_other_contents_is_refused(fetch, tmp_path):
    first = load_registry()["deepcell2016"].select("hela_pair")[0]
    path = tmp_path / "mirror" / first.path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"page not found")
    with serve(tmp_path / "mirror") as server:
        ended = fetch(*PAIR, "--out=raw", f"--base_url={server.url}", cwd=tmp_path)
    assert ended.returncode == 1 and server.requests == {first.path: 2}
    assert "came 14 bytes" in ended.stderr and not (tmp_path / "raw" / first.path).exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "no --dataset: choose one of deepcell2016 (130.0 MB, subsets hela, hela_pair)"),
        (["--dataset=usiigaci"], "no --out: give the folder to write"),
        (["--dataset=usiigaci", "--subset=hela"], "usiigaci has no subset 'hela'"),
    ],
)
def test_what_is_missing_is_named(fetch, tmp_path, arguments, told):
    ended = fetch(*arguments, cwd=tmp_path)
    assert ended.returncode == 1 and told in ended.stderr and not list(tmp_path.iterdir())


def test_genuine_files_from_a_server_to_a_data_set(launch, real_data, tmp_path):
    root = real_data.parent / "raw" / "deepcell2016"
    if not root.is_dir():
        pytest.skip(f"genuine files not found: {root} is absent")
    with serve(root) as server:
        get = functools.partial(launch, "fetch", *PAIR, "--out=raw", f"--base_url={server.url}")
        first = get(cwd=tmp_path)
        assert first.returncode == 0, first.stderr
        assert "10 files, 8.1 MB; 10 fetched (8.1 MB), 0 were there" in first.stdout
        server.requests.clear()
        second = get(cwd=tmp_path)
        assert "0 fetched (0.0 MB), 10 were there" in second.stdout and not server.requests
    assert (tmp_path / "raw" / "SOURCE.txt").read_text() in first.stdout
    prepared = launch(
        "prepare", "--source=raw", "--layout=deepcell2016", "--test_groups=HeLa_joint_set1",
        "--bin=2", "--out=data", cwd=tmp_path,
    )  # fmt: skip
    assert prepared.returncode == 0, prepared.stderr
    dataset = open_dataset(tmp_path / "data")
    assert [field.name for field in dataset.fields] == ["HeLa_joint_set1", "HeLa_joint_set2"]
    assert [(field.height, field.width) for field in dataset.fields] == [(540, 640)] * 2
    assert [len(np.unique(dataset.labels(field.name))) - 1 for field in dataset.fields] == [
        172,
        178,
    ]
    assert dataset.binning == 2
