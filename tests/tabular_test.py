"""Our own tables and arrays: whole, as they were written, and nothing that a spreadsheet runs."""

import csv

import numpy as np
import pytest

from isl_jax.tabular import printable, read_csv, read_npy, write_csv

NAMES = ["=1+1", "'=x", "''=x", "+a", "-b", "@c", "-1", "1e3", "$x$", 'a,b\n"c"', "\udcff.tif", ""]


def test_formulas_are_text_and_come_back_as_they_were(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, ["field", "value"], [[name, -k] for k, name in enumerate(NAMES)])
    with path.open(newline="", encoding="utf-8") as file:
        cells = [row[0] for row in csv.reader(file)][1:]
    numbers = {"-1"}
    assert not [c for c in cells if c[:1] in tuple("=+-@\t\r") and c not in numbers]
    rows = read_csv(path, remedy="write it again", text=["field"], rows=len(NAMES))
    assert [row["field"] for row in rows] == NAMES
    assert [row["value"] for row in rows] == [-k for k in range(len(NAMES))]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is missing"),
        ("field,map\na,0.5\n", "1 rows, expected 2"),
        ("field\na\nb\n", "map"),
        ("field,map\na,0.5\nb\n", "zip"),
        ("field,map\na,0.5\nb,x\n", "could not convert"),
        ("field,map,map\na,1,1\nb,1,1\n", "columns"),
        ('field,map\n"a,0.5\n', "quote|EOF|end"),
        ("field,map\na,0.5\nb,\xff\n", "utf-8"),
        ("field,map\na\0,1\nb,1\n", ""),
    ],
)
def test_a_damaged_table_is_named(tmp_path, content, told):
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode("latin-1"))
    match = rf"a\.csv: damaged \(.*({told}).*\); evaluate again"
    if "\0" in content:  # read as it is by some versions of Python
        return
    with pytest.raises(ValueError, match=match):
        read_csv(path, remedy="evaluate again", text=["field"], needed=["map"], rows=2)


def test_an_array_is_what_was_said_of_it(tmp_path):
    path, array = tmp_path / "a.npy", np.arange(24, dtype=np.uint16).reshape(4, 3, 2)
    np.save(path, array)
    found = read_npy(path, remedy="prepare again", shape=(4, 3, 2), dtype="uint16")
    assert isinstance(found, np.memmap) and (found == array).all()
    for wanted in ({"shape": (4, 3)}, {"shape": (4, 3, 2), "dtype": "int32"}):
        with pytest.raises(ValueError, match=r"a\.npy: damaged \(it holds uint16 .*prepare again"):
            read_npy(path, remedy="prepare again", **wanted)
    content = path.read_bytes()
    for damaged in (
        content[:-1],
        content + b"x",
        content[:60],
        b"",
        content.replace(b"<u2", b"|O8"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.npy: damaged .*prepare again"):
            read_npy(path, remedy="prepare again", shape=(4, 3, 2))


def test_names_that_are_no_text_can_be_printed():
    assert printable("a\udcff") == "a\\udcff" and printable("ü") == "ü"
