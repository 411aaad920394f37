"""The command that prepares data: its table, its summary, its answers to bad input."""

import functools
import json

import numpy as np
import pytest
import tifffile

from isl_jax.data.store import open_dataset
from tests.data.conftest import write_raw

ROLES = ["--inputs=phase,bright", "--stain=dapi", "--labels=masks"]


@pytest.fixture
def prepare(launch):
    return functools.partial(launch, "prepare")


@pytest.fixture
def folder(tmp_path):
    write_raw(tmp_path / "raw", dict.fromkeys(["w1 f1", "w1 f2", "w2 f1", "w3 f1"], (40, 50)))
    (tmp_path / "raw" / "notes_phase.jpg").write_bytes(b"")
    return tmp_path


def test_dry_run_prints_the_table_and_writes_nothing(prepare, folder):
    (folder / "raw" / "overview.tif").write_bytes(b"not looked into")
    ended = prepare("--source=raw", "--dry_run", r"--group=^w\d", *ROLES, cwd=folder)
    assert ended.returncode == 0 and not ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0].split() == [
        "field", "group", "split", "channel", "shape", "dtype", "planes", "range", "saturated",
        "empty", "files", "objects",
    ]  # fmt: skip
    assert len(lines) == 1 + 4 * 4 + 1
    assert lines[1].split()[:2] == ["w1", "f1"] and "40×50" in lines[1] and "uint16" in lines[1]
    assert lines[-1] == "not used: raw/overview.tif"
    assert [path.name for path in folder.iterdir()] == ["raw"]


def test_dry_run_lists_all_faults_at_once(prepare, folder):
    (folder / "raw" / "w1 f2_phase.tif").unlink()
    tifffile.imwrite(folder / "raw" / "w3 f1_dapi.tif", np.zeros((40, 50), np.uint16))
    ended = prepare("--source=raw", "--dry_run", *ROLES, cwd=folder)
    assert ended.returncode == 1 and not ended.stderr
    faults = [line for line in ended.stdout.splitlines() if line.startswith("fault: ")]
    assert len(faults) == 2
    assert "field 'w1 f2' has no 'phase' image" in faults[0]
    assert "w3 f1_dapi.tif: every pixel is 0" in faults[1]
    (line,) = [line for line in ended.stdout.splitlines() if " 0..0 " in line]
    assert line.split()[:2] == ["dapi", "(stain)"] and line.split()[-1] == "1"  # an empty plane
    assert "w2 f1" in ended.stdout


def test_the_flags_end_in_the_data_set(prepare, folder):
    ended = prepare(
        "--source=raw", "--out=data", r"--group=^w\d", "--test_groups=w2", "--val_groups=w3",
        "--bin=2", "--pixel_size=0.25", "--study=nucleus", "--stain_scale=dtype", *ROLES,
        cwd=folder,
    )  # fmt: skip
    assert ended.returncode == 0 and not ended.stderr, ended.stderr
    assert "train: 2 fields, 2 with labels" in ended.stdout
    dataset = open_dataset(folder / "data")
    assert [(field.group, field.split) for field in dataset.fields] == [
        ("w1", "train"),
        ("w1", "train"),
        ("w2", "test"),
        ("w3", "val"),
    ]
    assert (dataset.study, dataset.pixel_size, dataset.stain_scale.high) == ("nucleus", 0.5, 65535)
    assert dataset.fields[0].height == 20
    record = json.loads((folder / "data" / "dataset.json").read_text())
    assert record["split"]["method"] == "groups" and record["split"]["test"] == ["w2"]


def test_overwrite_replaces_the_folder(prepare, folder):
    common = ["--source=raw", "--out=data", "--test=0.25", "--val=0", *ROLES]
    assert prepare(*common, cwd=folder).returncode == 0
    refused = prepare(*common, cwd=folder)
    assert refused.returncode == 1 and "data: exists already" in refused.stderr
    assert prepare(*common, "--overwrite", "--bin=2", cwd=folder).returncode == 0
    assert open_dataset(folder / "data").fields[0].height == 20
    assert sorted(path.name for path in folder.iterdir()) == ["data", "raw"]


def test_labels_that_are_found_nowhere_are_an_error_with_the_channels_there(prepare, folder):
    (folder / "raw" / "w1 f1_rois.zip").write_bytes(b"")
    ended = prepare("--source=raw", "--out=data", *ROLES[:2], "--labels=mask", cwd=folder)
    assert ended.returncode == 1 and not (folder / "data").exists()
    assert "--labels=mask is found in no field" in ended.stderr and "masks" in ended.stderr
    assert "w1 f1_rois.zip" in ended.stderr and "label image" in ended.stderr


@pytest.mark.parametrize("dry", [True, False])
def test_a_mask_for_cells_is_a_fault_with_the_option_that_mends_it(prepare, folder, dry):
    for path in (folder / "raw").glob("*_masks.tif"):
        tifffile.imwrite(path, ((np.indices((40, 50)).sum(0) // 10) % 2 * 255).astype(np.uint8))
    options = ["--source=raw", "--test=0", "--val=0", *ROLES, "--dry_run" if dry else "--out=data"]
    ended = prepare(*options, cwd=folder)
    assert ended.returncode == 1 and not (folder / "data").exists()
    told = ended.stdout if dry else ended.stderr
    assert "one id in several pieces" in told and "(--labels=masks:components)" in told
    if dry:
        assert "1 cell, 1 in several pieces" in told
    options[options.index("--labels=masks")] += ":components"
    assert prepare(*options, cwd=folder).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out=data"], ["--source"]),
        (["--source=raw", *ROLES], ["--out", "--dry_run"]),
        (["--source=no such", "--out=data", *ROLES], ["no such: no such folder"]),
        (["--source=raw", "--out=data", "--inputs=cy5"], ["no file matches", "cy5"]),
        (["--source=raw", "--out=data", "--inputs=phase,cy5"], ["field 'w1 f1' has no 'cy5'"]),
        (["--source=raw", "--out=data", *ROLES, "--group=raw"], ["group expression 'raw'"]),
        (["--source=raw", "--out=data", *ROLES, "--group=^w", "--val=0"], ["1 group", "--test=0"]),
        (["--source=raw", "--out=data", *ROLES, "--split_files=raw"], ["train.txt: no such file"]),
        (["--source=raw", "--out=data", "stray"], ["stray"]),
    ],
    ids=lambda value: " ".join(value)[-40:],
)
def test_bad_input_is_one_line_and_writes_nothing(prepare, arguments, told, folder):
    ended = prepare(*arguments, cwd=folder)
    assert ended.returncode != 0
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    for word in told:
        assert word in ended.stderr, ended.stderr
    assert [path.name for path in folder.iterdir()] == ["raw"]
