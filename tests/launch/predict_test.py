"""The command that predicts: whole runs of it, and its answers to bad input."""

import functools
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
import tifffile

from isl_jax.inference.info import ModelInfo, NetworkInfo
from isl_jax.inference.model import save_model
from isl_jax.models.heads import build_network
from isl_jax.models.variables import init_variables
from isl_jax.task import Task


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of tiny size, and images as a lab has them."""
    folder = tmp_path_factory.mktemp("predict")
    network = build_network(out_channels=1, encoder="tiny")
    info = ModelInfo(
        "nucleus",
        "segment",
        NetworkInfo("tiny", "none", 1, 2),
        Task("semantic"),
        ("bf", "phase"),
    )
    save_model(folder / "model", info, init_variables(network, in_channels=2, seed=0))
    rng = np.random.default_rng(0)
    (folder / "raw").mkdir()
    for name in ("a", "b", "c"):
        for channel in ("bf", "phase", "dapi"):
            image = rng.integers(0, 4000, (40, 50), dtype=np.uint16)
            tifffile.imwrite(folder / "raw" / f"{name}_{channel}.tif", image)
    (folder / "raw" / "b_phase.tif").write_bytes(b"II*\0 and nothing more")
    return folder


@pytest.fixture
def predict(launch, folder):
    return functools.partial(launch, "predict", cwd=folder)


def test_a_folder_with_a_damaged_file_then_again(predict, folder):
    arguments = ["--model=.", "--input=raw", "--out=out", "--outputs=labels,overlay"]
    ended = predict(*arguments)
    assert ended.returncode == 1
    unused = "3 other files are not used (a_dapi.tif, b_dapi.tif, c_dapi.tif)"
    assert f"3 images, 0 done already; {unused}" in ended.stdout
    assert "2 images in" in ended.stdout and "images/s (read" in ended.stdout
    assert "error: 1 images failed:" in ended.stderr and "b_phase.tif" in ended.stderr
    assert "Traceback" not in ended.stderr
    labels = sorted(path.name for path in (folder / "out").glob("*_labels.tif"))
    assert labels == ["a_labels.tif", "c_labels.tif"]
    page = (folder / "out" / "index.html").read_text()
    assert "2 images" in page and "b_phase.tif" in page
    tifffile.imwrite(folder / "raw" / "b_phase.tif", np.eye(50, dtype=np.uint16)[:40])
    ended = predict(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert "3 images, 2 done already" in ended.stdout and "1 images in" in ended.stdout


def test_days_with_images_of_one_name(predict, folder):
    for day in ("day1", "day2"):
        (folder / day).mkdir()
        for channel in ("bf", "phase"):
            image = np.random.default_rng(0).integers(0, 4000, (40, 50), dtype=np.uint16)
            tifffile.imwrite(folder / day / f"x_{channel}.tif", image)
    assert predict("--model=.", "--input=day1", "--out=days").returncode == 0
    before = (folder / "days" / "x_labels.tif").read_bytes()
    ended = predict("--model=.", "--input=day2", "--out=days")
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1
    for word in ("day1/x_bf.tif", "day2/x_bf.tif", "another --out", "--overwrite"):
        assert word in ended.stderr
    assert (folder / "days" / "x_labels.tif").read_bytes() == before


def test_awkward_names_from_beginning_to_end_and_again(predict, folder):
    """Commas, brackets, what is special in a link and in a page, and bytes that are no text."""
    place = folder / "run [2], day 1"
    place.mkdir()
    names = [b"50% #3", b"$x$ <b>", b"\xff\xfe", b"x [x=0,y=0]", b"javascript:a"]
    for number, name in enumerate(names):
        image = np.random.default_rng(number).integers(0, 4000, (2, 40, 50), dtype=np.uint16)
        with Path(os.fsdecode(os.fsencode(place) + b"/" + name + b".tif")).open("wb") as file:
            tifffile.imwrite(file, image, photometric="minisblack")
    arguments = ["--model=.", f"--input={place}", f"--out={place}"]
    arguments += ["--outputs=labels,overlay,table,rois,geojson"]
    ended = predict(*arguments, LC_ALL="C.UTF-8")
    assert ended.returncode == 0, ended.stderr
    assert "5 images, 0 done already" in ended.stdout
    page = (place / "index.html").read_text()
    links = re.findall('href="([^"]*)"', page)
    assert len(links) == 5 * 6
    for link in links:
        assert Path(os.fsdecode(os.fsencode(place) + b"/" + unquote_to_bytes(link))).exists()
    again = predict(*arguments)
    assert "5 images, 5 done already" in again.stdout and again.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model=none", "--input=raw", "--out=x"], ["none/model.json: no such file"]),
        (["--model=newer", "--input=raw", "--out=x"], ["schema version 99", "versions"]),
        (["--model=.", "--input=raw", "--out=model/model.json"], ["cannot be written"]),
    ],
    ids=lambda value: " ".join(value)[-40:],
)
def test_bad_input_is_one_line_and_writes_nothing(predict, folder, arguments, told):
    if "--model=newer" in arguments:
        (folder / "newer").mkdir()
        (folder / "newer" / "weights.safetensors").write_bytes(b"")
        described = json.loads((folder / "model" / "model.json").read_text())
        described["schema_version"] = 99
        (folder / "newer" / "model.json").write_text(json.dumps(described))
    ended = predict(*arguments)
    assert ended.returncode == 1
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    for word in told:
        assert word in lines[0]
    assert not (folder / "x").exists()


def test_labels_are_of_the_precision_of_their_calibration(predict):
    """float32 on every device: there is nothing that a backend could decide."""
    shown = predict("--help").stdout
    assert "<float32|bfloat16>" in shown
    after = shown[shown.index("--compute_dtype") :]
    assert "(default: 'float32')" in after[: after.index("--exclude")]
    ended = predict("--model=.", "--input=raw", "--out=x", "--compute_dtype=auto")
    assert ended.returncode == 2 and "float32|bfloat16" in ended.stderr


def test_help_names_every_output(predict):
    shown = predict("--help")
    assert shown.returncode == 0
    for word in ("labels", "geojson", "--shard", "--from_maps", "--halo"):
        assert word in shown.stdout
