"""The command lines of evaluation and report: bad input costs one line, and nothing is written."""

import json

import pytest
import tifffile

from isl_jax.study.records import read_rows
from tests.study.conftest import write_dataset


@pytest.fixture
def workdir(tmp_path):
    run = tmp_path / "W"
    run.mkdir()
    config = {"data": {"root": "no/such/data", "crop_size": 64}}
    (run / "config.json").write_text(json.dumps(config))
    return run


@pytest.mark.parametrize(
    ("command", "arguments", "told"),
    [
        ("report", [], ["--workdir"]),
        ("report", ["--workdir=gone"], ["gone", "no sweep"]),
        ("report", ["--workdir=W"], ["W", "sweep.json", "isl-sweep"]),
        ("evaluate", [], ["--workdir"]),
        ("evaluate", ["--workdir=gone"], ["gone/config.json", "isl-train"]),
        ("evaluate", ["--workdir=W"], ["no/such/data", "no such folder"]),
        ("evaluate", ["--workdir=W", "--data_root=W"], ["W", "not a prepared data set"]),
        ("evaluate", ["--workdir=new", "--predictions=W"], ["--data_root"]),
        ("evaluate", ["--predictions=W"], ["--sweep", "--workdir"]),
        ("evaluate", ["--predictions=W", "--sweep=W"], ["W/sweep.json", "isl-sweep"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(launch, command, arguments, told, workdir):
    ended = launch(command, *arguments, cwd=workdir.parent)
    assert ended.returncode == 1
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    assert all(word in lines[0] for word in told), lines[0]
    assert [path.name for path in workdir.parent.rglob("*")] == ["W", "config.json"]


def test_report_of_a_sweep_that_has_not_begun(launch, tmp_path):
    sweep = {"study": "cell", "n": [1], "inits": ["random", "isl"], "seeds": [0]}
    (tmp_path / "sweep.json").write_text(json.dumps(sweep | {"data_root": "gone"}))
    ended = launch("report", "--workdir=.", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "report: report/index.html"
    assert "random_n1_seed0 (missing: not started)" in ended.stdout
    assert (tmp_path / "report" / "index.html").exists()


def test_label_images_of_another_program_reach_the_page(launch, tmp_path):
    dataset = write_dataset(tmp_path / "data", "cell", size=(64, 64))
    masks = tmp_path / "cyto3"
    masks.mkdir()
    for field in dataset.select("test"):
        tifffile.imwrite(masks / f"{field.name}_cp_masks.tif", dataset.labels(field.name))
    sweep = {"study": "cell", "n": [1], "inits": ["random", "isl"], "seeds": [0]}
    sweep |= {"data_root": str(dataset.root)}
    crops = {"size": 32, "per_image": 2, "margin": [0.5, 0, 0, 0], "seed": 3}
    (tmp_path / "S").mkdir()
    (tmp_path / "S" / "sweep.json").write_text(json.dumps(sweep | {"test_crops": crops}))
    ended = launch("evaluate", "--predictions=cyto3", "--sweep=S", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    rows = read_rows(tmp_path / "S" / "others" / "cyto3" / "evaluation" / "crops.csv")
    assert len(rows) == 8 and {row["size"] for row in rows} == {32}
    assert all(row["top"] >= 32 for row in rows)  # the margin of the sweep
    ended = launch("report", "--workdir=S", cwd=tmp_path)
    assert "cyto3, mAP: 1.00 ± 0.00" in ended.stdout
    assert "cyto3 reaches mAP 1.00 ± 0.00" in (tmp_path / "S/report/index.html").read_text()
