"""Fetching public sets from a server that misbehaves, and the registry of the real ones."""

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from isl_jax.ingest import public
from isl_jax.ingest.public import CHECKSUMS, NOTICE, fetch, is_present, listed, load_registry
from tests.ingest.file_server import closed_url, serve

CONTENTS = {
    "train/set 1/phase.png": os.urandom(200_000),
    "train/set 1/mask.png": b"mask",
    "test/phase.png": os.urandom(300_000),
}


@pytest.fixture
def mirror(tmp_path):
    for name, contents in CONTENTS.items():
        path = tmp_path / "mirror" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    return tmp_path / "mirror"


@pytest.fixture
def cells(tmp_path):
    """A public set of the files above, read from a registry file."""
    entry = {
        "title": "Cells of a test",
        "repository": "lab/cells",
        "revision": "0123abc",
        "licence": "CC0",
        "citation": "Nobody (2026)",
        "subsets": {"train": ["train/"]},
        "files": {
            name: {"sha256": hashlib.sha256(contents).hexdigest(), "bytes": len(contents)}
            for name, contents in CONTENTS.items()
        },
    }
    path = tmp_path / "registry.json"
    path.write_text(json.dumps({"cells": entry}))
    return load_registry(path)["cells"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(public, "_WAITS", (0, 0))


def files_below(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_files_arrive_as_they_are_with_licence_and_citation(cells, mirror, tmp_path):
    arrived = []
    with serve(mirror) as server:
        fetched = fetch(
            cells, cells.files, tmp_path / "raw", base_url=server.url, on_bytes=arrived.append
        )
    assert fetched == cells.files and sum(arrived) == sum(map(len, CONTENTS.values()))
    found = files_below(tmp_path / "raw")
    notice = found.pop(NOTICE).decode()
    assert found == CONTENTS
    for part in ("https://github.com/lab/cells", "0123abc", "CC0", "Nobody (2026)"):
        assert part in notice


def test_a_second_fetch_asks_for_nothing_and_a_changed_file_for_itself(cells, mirror, tmp_path):
    out = tmp_path / "raw"
    with serve(mirror) as server:
        fetch(cells, cells.select("train"), out, base_url=server.url)
        server.requests.clear()
        assert fetch(cells, cells.select("train"), out, base_url=server.url) == ()
        assert not server.requests
        (out / "train/set 1/mask.png").write_bytes(b"mast")
        (changed,) = fetch(cells, cells.select("train"), out, base_url=server.url)
    assert dict(server.requests) == {changed.path: 1} == {"train/set 1/mask.png": 1}
    assert (out / changed.path).read_bytes() == b"mask"


@pytest.mark.parametrize("fault", ["damage", "cut", 503])
def test_one_bad_answer_is_asked_again(cells, mirror, tmp_path, fault):
    arrived = []
    with serve(mirror) as server:
        server.faults["test/phase.png"] = [fault]
        fetch(cells, cells.files, tmp_path / "raw", base_url=server.url, on_bytes=arrived.append)
    assert server.requests["test/phase.png"] == 2
    assert all(is_present(file, tmp_path / "raw") for file in cells.files)
    assert sum(arrived) == sum(map(len, CONTENTS.values()))  # a lost attempt is taken back


@pytest.mark.parametrize(
    ("fault", "attempts", "error", "told"),
    [
        ("damage", 2, ValueError, "arrived twice with contents other than those registered"),
        ("cut", 3, ConnectionError, "connection failed, 3 attempts; check the network"),
        (500, 3, ConnectionError, "the server answered 500 3 times"),
        (403, 1, ConnectionError, "the server answers 403"),
        (404, 1, ConnectionError, "try a mirror with --base_url"),
    ],
)
def test_a_lasting_fault_is_one_line_and_leaves_nothing_half(
    cells, mirror, tmp_path, fault, attempts, error, told
):
    out = tmp_path / "raw"
    with serve(mirror) as server:
        server.faults["test/phase.png"] = [fault] * 9
        with pytest.raises(error, match=re.escape(told)) as caught:
            fetch(cells, cells.files, out, base_url=server.url)
    assert f"{server.url}/test/phase.png" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert server.requests["test/phase.png"] == attempts
    assert files_below(out).keys() == {NOTICE, "train/set 1/phase.png", "train/set 1/mask.png"}


def test_without_network(cells, tmp_path):
    with pytest.raises(ConnectionError, match=r"connection failed.*check the network.*--base_url"):
        fetch(cells, cells.files, tmp_path / "raw", base_url=closed_url())
    assert files_below(tmp_path / "raw").keys() == {NOTICE}


def test_a_folder_as_mirror(cells, mirror, tmp_path):
    fetch(cells, cells.files, tmp_path / "raw", base_url=mirror.as_uri())
    assert all(is_present(file, tmp_path / "raw") for file in cells.files)
    (mirror / "test/phase.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"test/phase\.png: the mirror has no such file"):
        fetch(cells, cells.files, tmp_path / "again", base_url=mirror.as_uri())
    with pytest.raises(ValueError, match=r"'/data' is none of http"):
        fetch(cells, cells.files, tmp_path / "raw", base_url="/data")


def test_a_disk_that_is_full(cells, mirror, tmp_path, monkeypatch):
    out = tmp_path / "raw"

    def no_space(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"phase\.png: the disk is full; free some space"):
        fetch(cells, cells.files, out, base_url=mirror.as_uri(), on_bytes=no_space)
    assert files_below(out).keys() == {NOTICE}
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free=400_000))
    with pytest.raises(OSError, match="1 MB are to be fetched, but the disk has 0 MB free"):
        fetch(cells, cells.files, tmp_path / "none", base_url=mirror.as_uri())
    assert not (tmp_path / "none").exists()


def test_a_fetch_that_is_killed_leaves_no_half_file_and_is_taken_up(cells, mirror, tmp_path):
    program = (
        "import sys; from pathlib import Path; from isl_jax.ingest.public import *;"
        "cells = load_registry(Path(sys.argv[1]))['cells'];"
        "fetch(cells, cells.files, Path(sys.argv[2]), base_url=sys.argv[3])"
    )
    out = tmp_path / "raw"
    with serve(mirror) as server:
        server.faults["train/set 1/mask.png"] = ["stall"]
        arguments = [str(tmp_path / "registry.json"), str(out), server.url]
        with subprocess.Popen([sys.executable, "-c", program, *arguments]) as process:
            assert server.stalled.wait(60)
            process.send_signal(signal.SIGKILL)
        assert (out / "train/set 1/phase.png").read_bytes() == CONTENTS["train/set 1/phase.png"]
        assert not (out / "train/set 1/mask.png").exists()
        fetched = fetch(cells, cells.files, out, base_url=server.url)
    assert [file.path for file in fetched] == ["train/set 1/mask.png", "test/phase.png"]


def test_unknown_subset(cells):
    with pytest.raises(ValueError, match="cells has no subset 'hela'; it has train"):
        cells.select("hela")


@pytest.mark.parametrize("name", ["deepcell2016", "aisegcell", "usiigaci"])
def test_registered_sets_are_exact_and_say_whose_they_are(name):
    entry = load_registry()[name]
    assert re.fullmatch(r"[0-9a-f]{40}", entry.revision) and entry.revision in entry.url
    assert entry.licence and "https://doi.org/" in entry.citation
    assert len({file.path for file in entry.files}) == len(entry.files)
    for file in entry.files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256) and file.bytes > 0
        assert not Path(file.path).is_absolute() and ".." not in Path(file.path).parts
    for subset in entry.subsets:
        assert 0 < len(entry.select(subset)) < len(entry.files)


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a//x.png", "a/./x.png", "a\\..\\x.png"])
def test_a_registry_names_no_files_outside_its_folder(tmp_path, name):
    entry = dict.fromkeys(("title", "repository", "revision", "licence", "citation"), "x")
    files = {name: {"sha256": "0" * 64, "bytes": 1}}
    (tmp_path / "r.json").write_text(json.dumps({"s": {**entry, "subsets": {}, "files": files}}))
    with pytest.raises(ValueError, match="no path below a folder"):
        load_registry(tmp_path / "r.json")


@pytest.fixture
def unseen(mirror, tmp_path):
    """A record of Zenodo that nobody has fetched yet, and its mirror."""
    files = [
        {"key": name, "size": len(contents), "checksum": f"md5:{hashlib.md5(contents).hexdigest()}"}
        for name, contents in CONTENTS.items()
    ]
    (mirror / "record.json").write_text(json.dumps({"files": files, "title": "cells"}))
    facts = dict.fromkeys(("title", "licence", "citation"), "x")
    entry = {**facts, "repository": "zenodo", "revision": "12", "subsets": {}, "files": {}}
    (tmp_path / "unseen.json").write_text(json.dumps({"cells": entry}))
    return load_registry(tmp_path / "unseen.json")["cells"]


def test_a_set_not_yet_seen_is_asked_for_and_known_from_then_on(unseen, mirror, tmp_path):
    out = tmp_path / "raw"
    with serve(mirror) as server:
        found = listed(unseen, out, server.url)
        server.faults["test/phase.png"] = ["damage"]
        assert fetch(found, found.files, out, base_url=server.url) == found.files
        assert server.requests["test/phase.png"] == 2  # the record's md5 told
    assert "https://zenodo.org/records/12\n" in (out / NOTICE).read_text()
    known = listed(unseen, out)  # asks nobody
    for file in known.files:
        assert file.sha256 == hashlib.sha256(CONTENTS[file.path]).hexdigest()
    (out / "train/set 1/mask.png").write_bytes(b"mast")
    assert not is_present(known.files[1], out)
    (mirror / "train/set 1/mask.png").write_bytes(b"new!")
    with pytest.raises(ValueError, match="arrived twice with contents other than those registered"):
        fetch(known, known.files, out, base_url=mirror.as_uri())


def test_a_record_that_is_none(unseen, mirror, tmp_path):
    (mirror / "record.json").write_text('{"files": [{"key": 3}]}')
    with serve(mirror) as server:
        with pytest.raises(ValueError, match=r"not the list of a record's files .*key is '3'"):
            listed(unseen, None, server.url)
        with pytest.raises(ConnectionError, match="404"):
            listed(unseen, None, f"{server.url}/gone")
    evil = [{"key": "../x", "size": 1, "checksum": "md5:00"}]
    (mirror / "record.json").write_text(json.dumps({"files": evil}))
    with pytest.raises(ValueError, match="no path below a folder"):
        listed(unseen, None, mirror.as_uri())
    (tmp_path / CHECKSUMS).write_text('{"record": "13", "files": []}')
    with pytest.raises(ValueError, match="of record 13; choose another --out"):
        listed(unseen, tmp_path)


@pytest.mark.parametrize(
    ("name", "record"), [("deepbacs_brightfield", 5550935), ("cellular", 8315423)]
)
def test_registered_records_say_whose_they_are(name, record):
    entry = load_registry()[name]
    assert entry.is_record and entry.url == f"https://zenodo.org/records/{record}/files"
    assert "https://doi.org/" in entry.citation and not entry.files
