"""The command that exports: its file, its line, its answers to bad input."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from isl_jax.inference.info import ModelInfo, NetworkInfo
from isl_jax.inference.model import save_model
from isl_jax.models.heads import build_network
from isl_jax.models.port import torch_from_variables
from isl_jax.models.variables import init_variables
from isl_jax.task import Task


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    root = tmp_path_factory.mktemp("workdir")
    variables = init_variables(build_network(out_channels=1, encoder="tiny"), in_channels=3, seed=0)
    network = NetworkInfo("tiny", "none", 1, 3)
    info = ModelInfo("nucleus", "segment", network, Task("semantic"), ("a", "b", "c"))
    save_model(root / "model", info, variables)
    return root, variables


def test_a_workdir_becomes_a_file(launch, workdir, tmp_path):
    root, variables = workdir
    ended = launch("export", f"--model={root}", "--format=smp", "--out=w.safetensors", cwd=tmp_path)
    assert ended.returncode == 0 and not ended.stderr, ended.stderr
    assert ended.stdout.startswith("w.safetensors: smp, ")
    found = load_file(tmp_path / "w.safetensors")
    for name, array in torch_from_variables(variables).items():
        np.testing.assert_array_equal(found[name], array)


def test_the_licence_travels_with_the_weights(launch, workdir, tmp_path):
    root, _ = workdir
    arguments = [f"--model={root}", "--licence=CC-BY-4.0"]
    ended = launch("export", *arguments, "--format=smp", "--out=w.safetensors", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    with safe_open(tmp_path / "w.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["isl_jax"])["licence"] == "CC-BY-4.0"
    assert "not stated" in json.loads((root / "model" / "model.json").read_text())["licence"]
    ended = launch("export", *arguments, "--format=stablehlo", "--out=x", cwd=tmp_path)
    assert ended.returncode == 1 and "no place for it" in ended.stderr


def test_a_pretext_run_becomes_a_folder_with_the_terms_of_its_images(launch, workdir, tmp_path):
    _, variables = workdir
    info = ModelInfo(
        "cell", "pretrain", NetworkInfo("tiny", "none", 1, 3), Task("stain"), ("a",) * 3
    )
    save_model(tmp_path / "W0" / "model", info, variables)
    for file, content in (
        ("W0/config.json", json.dumps({"data": {"root": str(tmp_path / "data")}})),
        ("data/dataset.json", json.dumps({"source": str(tmp_path / "raw")})),
        ("raw/SOURCE.txt", "cells: of a test\nLicence: CC0\n"),
    ):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(content)
    arguments = ["--model=W0", "--format=pretrained", "--dtype=bfloat16"]
    ended = launch("export", *arguments, "--out=hela", cwd=tmp_path)
    assert ended.returncode == 0 and "hela: pretrained, " in ended.stdout, ended.stderr
    assert "* cells: of a test Licence: CC0\n" in (tmp_path / "hela" / "README.md").read_text()
    ended = launch("export", *arguments, "--out=x", "--data_licence=MIT", cwd=tmp_path)
    assert "* MIT\n" in (tmp_path / "x" / "README.md").read_text()
    ended = launch("export", *arguments, "--out=x", cwd=tmp_path)
    assert ended.returncode == 1 and "x: exists already; name a new folder" in ended.stderr


def test_bad_input_is_one_line(launch, tmp_path):
    for arguments, told in (
        (["--format=onnx"], "--model=FOLDER, --format and --out=FILE"),
        (["--model=gone", "--format=onnx", "--out=x"], "gone/model.json: no such file"),
    ):
        ended = launch("export", *arguments, cwd=tmp_path)
        assert ended.returncode != 0 and told in ended.stderr, ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
