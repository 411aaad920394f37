"""What other programs are given, and what becomes of their label images; a stand-in plays them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from isl_jax.data.coverage import annotated_subset
from isl_jax.study.records import read_rows
from tests.launch.conftest import ROOT
from tests.study.conftest import write_dataset

# Reads the task as a program does, and calls each quarter of the brightest pixels a cell.
STAND_IN = """
import json, sys
from pathlib import Path
import numpy as np, tifffile
folder = Path(sys.argv[2])
task = json.loads((folder / "task.json").read_text())
if task["seed"] == 9:
    raise SystemExit("out of memory")
given = {name: np.load(folder / "data" / f"{name}.npz") for name in task["train"] + task["test"]}
seen = {name: [*map(str, arrays["image"].shape), *arrays.files] for name, arrays in given.items()}
(folder / "masks").mkdir()
for name in task["test"]:
    image = given[name]["image"][0]
    bright = (image > np.quantile(image, 0.75)).astype(np.int32)
    tifffile.imwrite(folder / "masks" / f"{name}.tif", bright)
figures = dict(seen=seen, crops_seen=8, train_seconds=1.5, seconds_a_field=0.5)
(folder / "figures.json").write_text(json.dumps(figures | {"peak_memory_mib": 7.0}))
"""


@pytest.fixture
def sweep(tmp_path) -> Path:
    dataset = write_dataset(tmp_path / "data", "cell")
    stored = {"study": "cell", "n": [1], "inits": ["isl"], "seeds": [0, 1]}
    crops = {"size": 48, "per_image": 3, "margin": [0.0] * 4, "seed": 0}
    stored |= {"data_root": str(dataset.root), "test_crops": crops}
    (tmp_path / "S").mkdir()
    (tmp_path / "S" / "sweep.json").write_text(json.dumps(stored))
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/stand_in.py "$@"\n')
    program.chmod(0o755)
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    return tmp_path / "S"


@pytest.fixture
def peers(launch, sweep):
    program = f"--python={sweep.parent / 'program'}"
    return lambda *words: launch("benchmarks/peers", program, *words, cwd=sweep.parent)


def test_a_program_gets_what_our_runs_got_and_is_scored_as_they_are(peers, sweep):
    arguments = ("--sweep=S", "--programs=stardist", "--seeds=0", "--planes=bf0,pc")
    ended = peers(*arguments)
    assert ended.returncode == 0, ended.stderr
    folder = sweep / "others" / "stardist_n1_seed0"
    task = json.loads((folder / "task.json").read_text())
    dataset = write_dataset(sweep.parent / "again", "cell")
    (chosen,) = annotated_subset(dataset, 1, 0)
    assert task["train"] == [chosen.name] and len(task["test"]) == 4
    seen = json.loads((folder / "figures.json").read_text())["seen"]
    assert seen[chosen.name] == ["2", "96", "112", "image", "labels"]
    assert all(seen[name] == ["2", "96", "112", "image"] for name in task["test"])
    assert not (folder / "data").exists()
    rows = read_rows(folder / "evaluation" / "fields.csv")
    assert [row["field"] for row in rows] == task["test"] and "pq" in rows[0]
    assert np.isfinite([row["map"] for row in rows]).all()
    assert "train s  s a field  peak MiB" in ended.stdout
    assert "stardist_n1_seed0: done before" in peers(*arguments).stdout
    other = peers(*arguments, "--crop_size=64")
    assert other.returncode == 1 and "other settings (crop_size)" in other.stderr


def test_what_fails_is_one_line(peers, sweep):
    for words, told in (
        (("--programs=stardist",), "--sweep=FOLDER is needed"),
        (("--sweep=S", "--programs=unet"), "'unet' is none of stardist, cellpose, cyto3, cpsam"),
        (("--sweep=S", "--n=0"), "--n=0: stardist has random first weights"),
        (("--sweep=S", "--n=7"), "7 annotated training fields were asked for, there are 2"),
        (("--sweep=S", "--planes=dic"), "'dic' is none of the channels bf0, bf1, pc"),
        (("--sweep=S", "--seeds=9"), "stardist failed: out of memory (see log.txt there)"),
    ):
        ended = peers(*words)
        assert ended.returncode == 1 and told in ended.stderr, ended.stderr
        assert len([line for line in ended.stderr.splitlines() if "error" in line]) == 1
    assert not list(sweep.glob("others/*/evaluation"))


def test_the_programs_run_without_our_package():
    text = (ROOT / "launch" / "benchmarks" / "_peer_programs.py").read_text()
    assert "import isl_jax" not in text and "from isl_jax" not in text
