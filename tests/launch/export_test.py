"""The command that exports: its file, its line, its answers to bad input."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from isl_jax.inference.model import ModelInfo, NetworkInfo, save_model
from isl_jax.models.heads import build_network, init_variables
from isl_jax.models.port import torch_from_variables
from isl_jax.training.objectives import Objective


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    root = tmp_path_factory.mktemp("workdir")
    variables = init_variables(build_network(out_channels=1, encoder="tiny"), in_channels=3, seed=0)
    network = NetworkInfo("tiny", "none", 1, 3)
    info = ModelInfo("nucleus", "segment", network, Objective("semantic"), ("a", "b", "c"))
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


def test_bad_input_is_one_line(launch, tmp_path):
    for arguments, told in (
        (["--format=onnx"], "--model=FOLDER, --format and --out=FILE"),
        (["--model=gone", "--format=onnx", "--out=x"], "gone/model.json: no such file"),
    ):
        ended = launch("export", *arguments, cwd=tmp_path)
        assert ended.returncode != 0 and told in ended.stderr, ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
