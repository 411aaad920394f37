import json
import tomllib

import numpy as np
import pytest
import tifffile

from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.layouts import (
    Layout,
    Role,
    layout_from_options,
    parse_roles,
)
from isl_jax.ingest.presets import PRESETS, load_layout


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("phase", Role("phase")),
        ("ch5[1,2]", Role("ch5", (1, 2))),
        ("dic[::2]", Role("dic", slice(None, None, 2))),
        ("dapi:max", Role("dapi", None, "max")),
        ("w4Cy5[0:8]:focus", Role("w4Cy5", slice(0, 8), "focus")),
    ],
)
def test_roles_are_parsed_and_printed_back(text, expected):
    role = Role.parse(text)
    assert role == expected
    assert Role.parse(str(role)).select(9) == role.select(9)


def test_commas_inside_brackets_belong_to_the_planes():
    assert [str(role) for role in parse_roles("ch5[1,2],ch1:max,x")] == ["ch5[1,2]", "ch1:max", "x"]


@pytest.mark.parametrize("text", ["a:sum", "a[1,]", "a[x]", "[1]", "a[1]b", "a[1:2:3:4]", ""])
def test_malformed_roles_are_refused(text):
    with pytest.raises(ValueError, match="of the form"):
        Role.parse(text)


def test_planes_of_a_stack():
    assert Role("z", (1, -1)).select(4) == [1, 3]
    assert Role("z", slice(None, None, 2)).select(5) == [0, 2, 4]
    with pytest.raises(ValueError, match=r"has 2 planes, but z\[1,2\] was asked for"):
        Role("z", (1, 2)).select(2)
    with pytest.raises(ValueError, match="has 1 plane, but"):
        Role("z", slice(3, None)).select(1)


def test_channel_names_decide_where_a_field_name_ends(tmp_path):
    touch(tmp_path, "hela_1_phase.tif", "hela_1_cell_masks.tif", "hela_1_nucleus_masks.tif")
    layout = layout_from_options(
        {"pattern": "{field}_{channel}{suffix}", "inputs": "phase", "labels": "cell_masks"}
    )
    (field,), unmatched = match_files(tmp_path, layout)
    assert field.name == field.group == "hela_1"
    assert field.files.keys() == {"phase", "cell_masks"}
    assert [path.name for path in unmatched] == ["hela_1_nucleus_masks.tif"]


def test_names_of_data_set_1(tmp_path):
    touch(
        tmp_path, *(f"r02c03f04_{c}.tiff" for c in ("ch1", "ch4", "ch5")), "r02c03f04_cellpose.png"
    )
    (field,), unmatched = match_files(tmp_path, PRESETS["dataset1"])
    assert field.name == "r02c03f04" and not unmatched
    assert sorted(field.files) == ["cellpose", "ch1", "ch4", "ch5"]


def test_names_of_data_set_2(tmp_path):
    touch(
        tmp_path,
        "exp1_w5DIC-oil-40x_s3.TIF",
        "exp1_w4Cy5_s3.TIF",
        "exp1_w3Hoechst_s3.TIF",
        "exp1_cell_instance_s3.png",
    )
    (field,), unmatched = match_files(tmp_path, PRESETS["dataset2"])
    assert field.name == "exp1 s3"
    assert sorted(field.files) == ["cell_instance", "w4Cy5", "w5DIC-oil-40x"]
    assert [path.name for path in unmatched] == ["exp1_w3Hoechst_s3.TIF"]


def test_stacks_of_one_file_a_plane_are_ordered_by_number(tmp_path):
    touch(tmp_path, *(f"a_z{k}_bf.tif" for k in (10, 2, 1)))
    layout = Layout("{field}_z{plane}_{channel}.tif", inputs=(Role("bf"),))
    (field,), _ = match_files(tmp_path, layout)
    assert [part.path.name for part in field.files["bf"]] == [
        "a_z1_bf.tif",
        "a_z2_bf.tif",
        "a_z10_bf.tif",
    ]


def test_groups_exclusion_and_subfolders(tmp_path):
    touch(tmp_path, *(f"plate1/r{r}c1f{f}_p.tif" for r in (1, 2) for f in (1, 2)), "bad_p.tif")
    layout = Layout("{field}_{channel}.tif", inputs=(Role("p"),), group=r"(.*)f\d+")
    fields, _ = match_files(tmp_path, layout, exclude="^bad")
    assert [(field.name, field.group) for field in fields] == [
        (f"plate1_r{r}c1f{f}", f"plate1_r{r}c1") for r in (1, 2) for f in (1, 2)
    ]
    with pytest.raises(ValueError, match=r"field 'bad': the group expression"):
        match_files(tmp_path, layout)


def test_a_layout_file_in_python_json_or_toml(tmp_path):
    options = {
        "pattern": "{field}/{channel}.tif",
        "inputs": ["bf[1,2]", "pc"],
        "stain": "dapi:max",
        "labels": ["m"],
    }
    (tmp_path / "lab.json").write_text(json.dumps(options))
    text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in options.items())
    assert tomllib.loads(text) == options
    (tmp_path / "lab.toml").write_text(text)
    (tmp_path / "lab.py").write_text(
        "from isl_jax.ingest.layouts import Layout, Role, parse_roles\n"
        "layout = Layout('{field}/{channel}.tif', parse_roles('bf[1,2],pc'),"
        " Role.parse('dapi:max'), ('m',))\n"
    )
    layouts = [load_layout(str(tmp_path / f"lab.{suffix}")) for suffix in ("json", "toml", "py")]
    assert layouts[0] == layouts[1] == layouts[2]
    touch(tmp_path / "raw", *(f"one/{c}.tif" for c in ("bf", "pc", "dapi", "m")))
    (field,), _ = match_files(tmp_path / "raw", layouts[0])
    assert field.name == "one" and len(field.files) == 4


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("lab.json", "{", "is not valid json"),
        ("lab.toml", "x", "is not valid toml"),
        ("lab.json", '{"inputs": "a"}', "no key 'pattern'"),
        ("lab.json", '{"pattern": "{field}", "stains": 1}', "unknown key 'stains'"),
        ("lab.json", "[]", "lab.json: is no table"),
        ("lab.json", "[" * 100_000, "lab.json: is not valid json"),
        ("lab.json", '{"pattern": "{field}", "inputs": 5}', "lab.json: inputs is '5', expected"),
        ("lab.json", '{"pattern": "{2}"}', "lab.json: .*is invalid"),
        ("lab.json", '{"pattern": "{field}", "stain": "x:y"}', "lab.json: "),
        ("lab.toml", 'pattern = "{field}"\nrenames = [["a"]]', "lab.toml: renames are pairs"),
        ("lab.py", "x = 1", "defines no variable `layout`"),
        ("lab.txt", "", "neither a preset"),
    ],
)
def test_wrong_layout_files_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_layout(str(tmp_path / name))


def test_patterns_that_cannot_work_are_refused(tmp_path):
    touch(tmp_path, "a_p.tif")
    for pattern, message in (("(?P<field>", "is invalid"), ("{channel}.tif", "names no field")):
        with pytest.raises(ValueError, match=message):
            match_files(tmp_path, Layout(pattern, inputs=(Role("p"),)))
