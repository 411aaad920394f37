"""Whole or not at all, whoever writes beside."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from isl_jax.files import (
    explained,
    read_json,
    read_json_lines,
    resumed_whole,
    write_json,
    write_json_lines,
    write_text,
    written_whole,
)

# Counts the writes that fail, from the moment that the other one is there as well.
_WRITER = """
import sys, pathlib
from isl_jax.files import write_json
folder, name, other = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
(folder / name).touch()
while not (folder / other).exists():
    pass
lost = 0
for value in range(200):
    try:
        write_json(folder / "shared.json", [value] * 500)
    except OSError:
        lost += 1
print(lost)
"""


def test_two_processes_that_write_one_name_lose_nothing(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), *names], stdout=subprocess.PIPE
        )
        for names in (("a", "b"), ("b", "a"))
    ]
    assert [writer.communicate(timeout=60)[0].split() for writer in writers] == [[b"0"], [b"0"]]
    assert json.loads((tmp_path / "shared.json").read_text()) == [199] * 500
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "shared.json"}


def test_two_threads_that_write_one_name_lose_nothing(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda n: write_json(tmp_path / "a", [n] * 500), range(400)):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_error_leaves_what_was_there(tmp_path):
    file, folder = tmp_path / "a.txt", tmp_path / "b"
    write_text(file, "before")
    folder.mkdir()
    (folder / "kept").touch()
    for path, make in ((file, lambda d: d.write_text("half")), (folder, lambda d: d.mkdir())):
        with pytest.raises(KeyboardInterrupt), written_whole(path) as draft:
            assert draft.name.startswith(".") and draft.name.endswith(path.suffix)
            make(draft)
            raise KeyboardInterrupt
    assert sorted(tmp_path.iterdir()) == [file, folder]
    assert file.read_text() == "before" and (folder / "kept").exists()


def test_a_folder_takes_the_place_of_one_that_is_full(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "old").touch()
    with written_whole(tmp_path / "b") as draft:
        draft.mkdir()
        (draft / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "new"]


def test_what_was_interrupted_goes_on(tmp_path):
    path = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt), resumed_whole(path, "v1") as draft:
        draft.mkdir()
        (draft / "first").touch()
        raise KeyboardInterrupt
    assert not path.exists()
    with resumed_whole(path, "v1") as draft:
        assert (draft / "first").exists()
    assert (path / "first").exists() and list(tmp_path.iterdir()) == [path]
    with pytest.raises(KeyboardInterrupt), resumed_whole(path, "v1") as draft:
        draft.mkdir()
        raise KeyboardInterrupt
    with resumed_whole(path, "v2") as draft:
        assert not draft.exists() and list(tmp_path.iterdir()) == [path]  # of other settings
        draft.mkdir()
    assert list(tmp_path.rglob("*")) == [path]


def test_a_kill_between_two_folders_of_one_name_loses_neither(tmp_path, monkeypatch):
    path = tmp_path / "data"
    for name in ("old", "new"):
        with written_whole(path) as draft:
            draft.mkdir()
            (draft / name).touch()
    before = path.with_name(".data.before.partial")  # what stood there, moved aside
    path.rename(before)
    with pytest.raises(KeyboardInterrupt), written_whole(path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [path] and (path / "new").exists()


def test_json_that_is_damaged_names_the_file_and_the_remedy(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": \xff')
    with pytest.raises(ValueError, match=r"a\.json: damaged .*; run again"):
        read_json(tmp_path / "a.json", remedy="run again")


def test_a_cut_line_is_passed_over(tmp_path):
    path = tmp_path / "a.jsonl"
    assert read_json_lines(path) == []
    write_json_lines(path, [{"a": 1}, {"a": 2}])
    with path.open("a") as file:
        file.write('{"a": ')
    assert read_json_lines(path) == [{"a": 1}, {"a": 2}]


def test_a_full_disk_is_told_with_the_way_on(tmp_path):
    told = r"x: could not be written \(full\).*make room"
    with pytest.raises(OSError, match=told), explained(tmp_path / "x"):
        raise OSError(28, "full")


def test_a_full_disk_is_told_by_the_name_that_was_to_be_written(tmp_path):
    for error in (OSError(28, "x"), OSError("25600 requested and 8128 written")):
        for context in (written_whole, resumed_whole):
            told = r"a/x: could not be written \(No space left on device\); make room"
            with pytest.raises(OSError, match=told) as raised, context(tmp_path / "a" / "x"):
                raise error
            assert raised.value.errno == 28


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "it is no table"),
        ("{}", "it has no 'n'"),
        ('{"n": true}', "n is 'True', expected a whole number"),
        ('{"n": 1000000000000000000000000}', "expected a whole number"),
        ('{"n": 1, "x": NaN}', "x is 'nan', expected a finite number"),
        ('{"n": 1, "x": 1e999}', "expected a finite number"),
        ('{"n": 1, "names": ["a", 1]}', r"names\[1\] is '1', expected text"),
        ('{"n": 1, "inner": {"deep": [3]}}', "deep is no table"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_json_that_is_not_as_it_should_be_is_named(tmp_path, content, told):
    keys = {
        "n": int, "x?": (float, None), "names?": [str], "inner?": {"deep": {"er": int}},
    }  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text('{"n": 1, "x": null, "names": ["a"], "inner": {"deep": {"er": 2}}}')
    assert read_json(path, remedy="run again", keys=keys)["n"] == 1
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"a\.json: damaged \(.*{told}.*\); run again"):
        read_json(path, remedy="run again", keys=keys)


def test_lines_that_are_none_of_ours_are_passed_over(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"step": 1}\n[1]\n{"loss": 2}\n{"step": "x"}\n\xff\n{"step": 2}\n{"st')
    assert read_json_lines(path, {"step": int}) == [{"step": 1}, {"step": 2}]
