"""Weights of a pretext run on other data: without a stain, with other planes, from a server."""

import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest

from isl_jax.data.description import DESCRIPTION
from isl_jax.data.store import STAIN, open_dataset
from isl_jax.inference.info import ModelInfo, NetworkInfo
from isl_jax.inference.model import load_model, save_model
from isl_jax.inference.stored import write_variables
from isl_jax.models.heads import build_network
from isl_jax.models.variables import init_variables, with_inputs
from isl_jax.study.experiment import run_experiment
from isl_jax.study.travel import pretext_variables
from isl_jax.task import Task
from tests.ingest.file_server import serve
from tests.study.conftest import CHANNELS, experiment

TINY = {
    "encoder": "tiny", "compute_dtype": "float32", "head": "paper", "slope": 1.0,
}  # fmt: skip


def without_stain(dataset):
    """The same data set as if nobody had stained anything."""
    path = dataset.root / DESCRIPTION
    record = json.loads(path.read_text()) | {"stain": None}
    for entry in record["fields"]:
        entry["has_stain"] = False
        dataset.path(entry["name"], STAIN).unlink()
    path.write_text(json.dumps(record))
    return open_dataset(dataset.root)


def write_pretext(folder, channels=CHANNELS, encoder="tiny", task="stain"):
    network = build_network(out_channels=1, encoder=encoder)
    variables = init_variables(network, in_channels=len(channels), seed=3)
    info = ModelInfo(
        "cell", "pretrain", NetworkInfo(encoder, "none", 1, len(channels)), Task(task), channels
    )
    save_model(folder, info, variables)
    write_variables(folder / "weights.safetensors", variables, description=info.to_json())
    return variables


@pytest.fixture
def stainless(make_dataset, tmp_path):
    return without_stain(make_dataset(tmp_path / "data", "cell"))


@pytest.mark.parametrize("planes", [1, 2, 3, 4])
def test_planes_that_are_the_same_are_seen_as_before(planes):
    network = build_network(out_channels=1, encoder="tiny")
    variables = init_variables(network, in_channels=3, seed=0)
    image = np.random.default_rng(0).standard_normal((1, 64, 64, 1)).astype(np.float32)

    def run(variables, count):
        return network.apply(variables, np.repeat(image, count, -1), train=False)

    with jax.default_matmul_precision("highest"):
        found = run(with_inputs(variables, planes), planes)
        np.testing.assert_allclose(found, run(variables, 3), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no first convolution"):
        with_inputs({"params": {"head": {"kernel": np.zeros((3, 3, 1, 2))}}}, planes)


def test_as_many_planes_are_taken_as_they_are(stainless, tmp_path, capsys):
    variables = write_pretext(tmp_path / "w0")
    found = pretext_variables(str(tmp_path / "w0"), stainless, "tiny")
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(variables), strict=True):
        np.testing.assert_array_equal(a, b)
    assert capsys.readouterr().out == ""


def test_what_is_different_is_said(stainless, tmp_path, capsys):
    write_pretext(tmp_path / "w0", ("phase",))
    pretext_variables(str(tmp_path / "w0"), dataclasses.replace(stainless, binning=2), "tiny")
    told = capsys.readouterr().out
    assert "learnt on 1 planes, this data set has 3" in told
    assert "binning 1, of this data set 2" in told
    write_pretext(tmp_path / "w0", ("dic",) * 3)
    pretext_variables(str(tmp_path / "w0"), stainless, "tiny")
    assert "learnt on dic, dic, dic; here they are bf0, bf1, pc" in capsys.readouterr().out


def test_what_does_not_fit_is_one_line(stainless, tmp_path):
    write_pretext(tmp_path / "w0")
    with pytest.raises(ValueError, match=r"its encoder is tiny.*--config\.model\.encoder=tiny"):
        pretext_variables(str(tmp_path / "w0"), stainless, "densenet121")
    write_pretext(tmp_path / "w1", task="semantic")
    with pytest.raises(ValueError, match=r"trained on semantic, init\.checkpoint wants a pretext"):
        pretext_variables(str(tmp_path / "w1"), stainless, "tiny")


def test_a_run_begins_from_weights_on_a_server(stainless, tmp_path, monkeypatch):
    write_pretext(tmp_path / "w0" / "v1", ("phase",))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    digest = hashlib.sha256((tmp_path / "w0/v1/weights.safetensors").read_bytes()).hexdigest()
    with serve(tmp_path / "w0") as server:
        source = f"{server.url}/v1/weights.safetensors#sha256={digest}"
        init = {"kind": "isl", "checkpoint": source, "weights": None}
        run = experiment(stainless, init=init, model=TINY)
        run_experiment(run, tmp_path / "W1")
        assert server.requests == {"v1/weights.safetensors": 1}
    assert load_model(tmp_path / "W1").info.training["init"] == "isl"
    assert json.loads((tmp_path / "W1/config.json").read_text())["init"]["checkpoint"] == source
