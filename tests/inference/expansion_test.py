"""What the text of `--input` stands for, whatever is in the names, and what is never an input."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from isl_jax.inference.expansion import expand, split_inputs
from isl_jax.inference.folder import Record, claimed, write_record

AWKWARD = "run [2], day 1"


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.eye(8, dtype=np.uint16))
    return path


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(text: str) -> list[str]:
    return [str(path) for path in expand(split_inputs(text)).files]


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        (AWKWARD, [AWKWARD]),
        (f"{AWKWARD},b.tif", [AWKWARD, "b.tif"]),
        (f"b.tif,{AWKWARD}/*.tif", ["b.tif", f"{AWKWARD}/*.tif"]),
        ("b.tif, b.tif", ["b.tif", "b.tif"]),
        ("no, such", ["no", "such"]),
    ],
)
def test_commas_part_entries_or_belong_to_names(inside, text, entries):
    image(inside / AWKWARD / "x.tif")
    image(inside / "b.tif")
    assert split_inputs(text) == entries


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{AWKWARD}/*.tif", ["t [x=0,y=0].tif", "t [x=1,y=0].tif", "t0.tif"]),
        (f"{AWKWARD}/t [x=0*.tif", ["t [x=0,y=0].tif"]),
        (f"{AWKWARD}/t[0-3].tif", ["t0.tif"]),
        ("run*/t?.tif", ["t0.tif"]),
    ],
)
def test_brackets_are_letters_where_that_leads_somewhere(inside, text, expected):
    for name in ("t [x=0,y=0].tif", "t [x=1,y=0].tif", "t0.tif"):
        image(inside / AWKWARD / name)
    assert names(text) == [f"{AWKWARD}/{name}" for name in expected]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_lists_with_a_mark_or_windows_lines(inside, start):
    image(inside / "ä 1.tif")
    (inside / "list.txt").write_bytes(start + "ä 1.tif\r\n".encode())
    assert names("list.txt") == ["ä 1.tif"]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-16-le"])
def test_lists_of_another_encoding_are_named(inside, encoding):
    (inside / "list.txt").write_bytes("é a.tif\n".encode(encoding))
    with pytest.raises(ValueError, match=r"^list\.txt: is n.*UTF-8"):
        expand(["list.txt"])


def test_linked_folders_are_searched_once(inside):
    image(inside / "store" / "p2" / "b.tif")
    image(inside / "in" / "p1" / "a.tif")
    (inside / "in" / "p2").symlink_to(inside / "store" / "p2")
    (inside / "in" / "p2" / "loop").symlink_to(inside / "in")
    assert names("in") == ["in/p1/a.tif", "in/p2/b.tif"]
    assert names("in,in/**/*.tif") == ["in/p1/a.tif", "in/p2/b.tif"]


def record(name: str, *files: str) -> Record:
    return Record(name, [["x", 1, 1]], ["labels"], list(files), "f", [8, 8])


@pytest.mark.parametrize("text", ["in", "in/**/*.tif", "in/*.tif,in/*/*"])
def test_what_we_wrote_is_no_input(inside, text):
    """In place, beside the images, half written, of another folder, and prepared."""
    for place in ("in", "in/sub"):
        folder = inside / place
        for name in ("a.tif", "a_labels.tif", "begun_labels.tif"):
            image(folder / name)
        (folder / "records").mkdir()
        write_record(folder, record("a", "a_labels.tif"))
        with pytest.raises(KeyboardInterrupt), claimed(folder, "b", ["begun_labels.tif"]):
            raise KeyboardInterrupt
    image(inside / "in" / "data" / "fields" / "f.tif")
    (inside / "in" / "data" / "dataset.json").write_text(json.dumps({"schema_version": 1}))
    assert sorted(names(text)) == ["in/a.tif", "in/sub/a.tif"]
    # What is named is taken.
    assert names("in/a_labels.tif") == ["in/a_labels.tif"]


def test_what_cellpose_left_is_passed_over_and_told(inside):
    for name in ("x.tif", "x_cp_masks.tif", "x_flows.tif", "y_flows.tif"):
        image(inside / "in" / name)
    np.save(inside / "in" / "x_seg.npy", np.zeros((2, 2)))
    found = expand(["in"])
    # There is no y that anybody could have made flows of.
    assert [path.name for path in found.files] == ["x.tif", "y_flows.tif"]
    left = [path.name for path in found.passed_over]
    assert left == ["x_cp_masks.tif", "x_flows.tif", "x_seg.npy"]


def test_nothing_there_is_said_with_the_remedy(inside):
    with pytest.raises(FileNotFoundError, match=r"no_such: no such file.*\.txt file"):
        expand(["no_such"])
    (inside / "list.txt").write_text("a\\b.tif\n")
    with pytest.raises(FileNotFoundError, match=r"^list\.txt: names a\\b.tif: no such file"):
        expand(["list.txt"])
    (inside / "gone.tif").symlink_to(inside / "nowhere.tif")
    assert names("gone.tif") == ["gone.tif"]  # opening it tells
