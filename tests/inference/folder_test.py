"""Whose the files of a folder of predictions are, and which images are due."""

import dataclasses
import json

import numpy as np
import pytest

from isl_jax.inference.folder import (
    Record,
    claimed,
    files_of,
    is_another,
    read_record,
    read_records,
    stamps,
    write_record,
)

RECORD = Record("a", [["/x/a.tif", 1, 2]], ["labels"], ["a_labels.tif"], "f", [8, 9])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "records").mkdir()
    return tmp_path


def test_a_record_comes_back_and_remembers_what_was_written(folder):
    write_record(folder, RECORD)
    write_record(folder, dataclasses.replace(RECORD, files=["a.csv"], outputs=["table"]))
    found = read_record(folder, "a")
    assert found is not None and found.outputs == ["table"]
    assert files_of(folder, "a") == {"a_labels.tif", "a.csv"}
    assert [one.name for one in read_records(folder)] == ["a"]


@pytest.mark.parametrize(
    "changes",
    [
        {"size": "large"}, {"size": [1, 2, 3]}, {"inputs": 3}, {"inputs": [["x"]]},
        {"files": [1]}, {"files": ["../x"]}, {"files": {}}, {"name": "b"}, {"name": None},
        {"fingerprint": []},
        {"num_objects": "many"}, {"binning": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_record_is_none(folder, changes):
    write_record(folder, RECORD)
    path = folder / "records" / "a.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert read_record(folder, "a") is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_what_is_no_record_is_none(folder, content):
    (folder / "records" / "a.json").write_bytes(content)
    assert read_record(folder, "a") is None and read_records(folder) == []


def test_records_of_before_still_count(folder):
    known = ("name", "inputs", "outputs", "files", "fingerprint", "size", "num_objects")
    old = {key: dataclasses.asdict(RECORD)[key] for key in known} | {"pixel_size": 0.5}
    (folder / "records" / "a.json").write_text(json.dumps(old))
    assert read_record(folder, "a") == dataclasses.replace(RECORD, pixel_size=0.5)


def test_a_claim_stays_while_there_is_something_to_claim(folder):
    for left in (False, True):
        with pytest.raises(OSError, match="full"), claimed(folder, "a", ["a.csv"]):
            if left:
                (folder / "a.csv").write_text("")
            raise OSError("full")
        assert files_of(folder, "a") == ({"a.csv"} if left else set())
    write_record(folder, RECORD)
    assert [path.name for path in (folder / "records").iterdir()] == ["a.json"]


def test_another_image_of_that_name(folder):
    mine, other = folder / "day1" / "a.tif", folder / "day2" / "a.tif"
    for path in (mine, other):
        path.parent.mkdir()
        path.write_text("")
    record = dataclasses.replace(RECORD, inputs=stamps([mine]))
    assert is_another(record, [mine]) is None
    assert is_another(record, [other]) == mine
    link = folder / "link"
    link.symlink_to(folder / "day1")
    assert is_another(record, [link / "a.tif"]) is None
    mine.unlink()
    assert is_another(record, [other]) is None


@pytest.mark.parametrize("change", ["content", "added", "removed", "renamed"])
def test_a_folder_is_known_by_all_files_below_it(folder, change):
    zarr = folder / "x.zarr"
    (zarr / "0" / "0").mkdir(parents=True)
    for number in range(3):
        np.arange(5).tofile(zarr / "0" / "0" / str(number))
    before = stamps([zarr])
    assert stamps([zarr]) == before
    chunk = zarr / "0" / "0" / "1"
    if change == "content":
        np.arange(6).tofile(chunk)
    elif change == "added":
        np.arange(5).tofile(chunk.with_name("3"))
    elif change == "removed":
        chunk.unlink()
    else:
        chunk.rename(chunk.with_name("7"))
    assert stamps([zarr]) != before
