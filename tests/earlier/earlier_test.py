"""What version 0.1.0 wrote before the rooms were rebuilt still opens, predicts, reports, is done.

The folders beside this file are those of `isl-prepare` and `isl-sweep` (demo configuration, tiny
encoder, 12 steps), made small: without checkpoints and pictures, the weights of three models
thinned out to the largest tenth and packed, `runs/` called `grid/`. `predicted.npz` is what that
version predicted of the first test field with these weights, `crops.json` the crops that it drew.
"""

import json
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest

from isl_jax.data.batches import load_crop
from isl_jax.data.crops import CropPlan, fixed_crops
from isl_jax.data.store import open_dataset
from isl_jax.inference.model import load_model
from isl_jax.report.page import write_report
from isl_jax.task import Kind, Task, crop_rule
from tests.launch.conftest import ROOT as CHECKOUT
from tests.launch.conftest import launch

__all__ = ["launch"]

HERE = Path(__file__).parent
# Stands for the folder that the files were written in.
ROOT = "@ROOT@"
STUDIES = ("nucleus", "cell")
PLAN = CropPlan(size=64, per_image=3, seed=2)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    """The folders as that version left them."""
    root = tmp_path_factory.mktemp("earlier")
    for path in HERE.rglob("*"):
        to = root / str(path.relative_to(HERE)).replace("grid", "runs")
        if path.is_dir() or path.suffix in (".py", ".pyc"):
            continue
        to.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".xz":
            to.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        elif path.suffix in (".npy", ".npz"):
            shutil.copy(path, to)
        else:
            to.write_text(path.read_text().replace(ROOT, str(root)))
    return root


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("kind", Kind)
def test_data_set_gives_the_same_crops(earlier, study, kind):
    stored = json.loads((earlier / "crops.json").read_text())[study][kind]
    dataset = open_dataset(earlier / "data" / study)
    crops, dropped = fixed_crops(dataset, dataset.fields, crop_rule(kind, study), PLAN)
    assert list(dropped) == stored["dropped"]
    expected = [(crop["field"], crop["top"], crop["left"]) for crop in stored["crops"]]
    assert [(crop.field, crop.top, crop.left) for crop in crops] == expected
    for crop, told in zip(crops, stored["crops"], strict=True):
        sample = load_crop(dataset, crop, Task(kind, distance_peaks="all"))
        np.testing.assert_allclose(sample["image"].std((0, 1)), told["image"], rtol=1e-5)
        np.testing.assert_allclose(sample["target"].mean((0, 1)), told["target"], rtol=1e-5)


@pytest.mark.parametrize(
    "workdir",
    [
        "sweep_nucleus/pretrain",
        "sweep_nucleus/runs/isl_n1_seed0",
        "sweep_cell/runs/isl_n1_seed0",
    ],
)
def test_model_folder_predicts_the_same(earlier, workdir):
    dataset = open_dataset(earlier / "data" / ("cell" if "cell" in workdir else "nucleus"))
    (field,) = dataset.select("test")
    image = np.moveaxis(np.asarray(dataset.inputs(field.name)), -1, 0)
    predicted = load_model(earlier / workdir).predict(image)
    with np.load(earlier / workdir / "predicted.npz") as stored:
        for name, expected in stored.items():
            found = getattr(predicted, name)
            assert found.dtype == expected.dtype, name
            if name == "labels":
                # A pixel may turn where another processor rounds otherwise.
                assert expected.max() > 5 and np.mean(found == expected) > 0.99
            else:
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("study", STUDIES)
def test_sweep_reports_the_same_table(earlier, study, monkeypatch):
    monkeypatch.chdir(earlier)
    page, table = write_report(Path(f"sweep_{study}"))
    assert f"{table}\n\nreport: {page}\n" == (earlier / f"report_{study}.txt").read_text()


@pytest.mark.parametrize("study", STUDIES)
def test_every_run_of_the_sweep_is_done(earlier, study, launch):
    """The command that made the sweep, but for the key that is gone, and what is default since."""
    settings = {
        "data.root": earlier / "data" / study, "model.encoder": "tiny", "data.crop_size": 64,
        "data.crops_per_image": 2, "data.fresh_crops": False, "writers": "",
        "train.num_steps": 12, "pretrain.num_steps": 12, "train.batch_size": 2,
        "pretrain.batch_size": 2,
    }  # fmt: skip
    ended = launch(
        "sweep",
        f"--config={CHECKOUT}/configs/demo.py:study={study},init=random,preset=paper",
        *(f"--config.{key}={value}" for key, value in settings.items()),
        *("--n=1", "--inits=random,isl", "--seeds=0", "--comparison=paper", "--dry_run"),
        f"--workdir=sweep_{study}",
        cwd=earlier,
        XLA_FLAGS="",  # one device, as it was
    )
    assert ended.returncode == 0, ended.stderr
    for name in ("pretrain", "random_n1_seed0", "isl_n1_seed0"):
        (line,) = [line for line in ended.stdout.splitlines() if line.split()[:1] == [name]]
        assert "done" in line
