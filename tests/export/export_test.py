"""Exports against the model they come from, and against the stored outputs of the peer."""

import dataclasses
import json
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load
from scipy import ndimage

from isl_jax.data.normalisation import NORMALISATIONS, PAPER
from isl_jax.data.stain import StainScale
from isl_jax.export import export_model
from isl_jax.export.check import check_equal
from isl_jax.export.onnx_model import maps_bytes, network_bytes, onnx_bytes, run_onnx
from isl_jax.export.smp import smp_bytes
from isl_jax.export.stablehlo import stablehlo_bytes
from isl_jax.inference.info import ModelInfo, NetworkInfo
from isl_jax.inference.model import Model
from isl_jax.inference.tiling import measured
from isl_jax.models.architecture import encoder_config
from isl_jax.models.port import expected_shapes, variables_from_torch
from isl_jax.task import Task
from tests.models.conftest import drawn_weight

CHANNELS = ("ch5[1]", "ch5[2]", "ch1:max")


def make_model(task: Task, *, encoder="tiny", head="none", **changes) -> Model:
    """A model of random weights, without compiling anything."""
    outputs = task.num_outputs
    known = {"segmentation_head.0.weight": np.zeros((outputs if head == "none" else 1, 16, 3, 3))}
    if head != "none":
        known = {f"u_net.{name}": array for name, array in known.items()}
    if head == "reference":
        known["block_1.1.weight"] = np.zeros(2)
    shapes = expected_shapes(known, encoder_config(encoder))
    salt = str(np.load(ORACLE)["salt"])
    state_dict = {
        name: drawn_weight(salt, name, shape).astype(np.float32) for name, shape in shapes.items()
    }
    info = ModelInfo(
        study="cell",
        stage="pretrain" if task.is_stain else "segment",
        network=NetworkInfo(encoder, head, outputs, 3),
        task=task,
        channels=CHANNELS,
        **changes,
    )
    return Model(info, variables_from_torch(state_dict, encoder=encoder))


ORACLE = Path(__file__).parents[1] / "models" / "fixtures" / "smp_unet_densenet121.npz"
SEMANTIC = Task("semantic", activation="shifted_sigmoid", slope=3.0)
CELL = Task("distance_and_semantic")


@pytest.fixture(scope="module")
def cell_model() -> Model:
    return make_model(dataclasses.replace(CELL, distance_unit=40.0), head="reference")


@pytest.fixture
def images():
    return np.random.default_rng(1).standard_normal((2, 3, 70, 97), np.float32)


@pytest.mark.parametrize("head", ["none", "paper", "reference"])
def test_smp_file_comes_back_exactly(head):
    model = make_model(CELL, head=head)
    variables = variables_from_torch(load(smp_bytes(model)), encoder="tiny")
    assert jax.tree.structure(variables) == jax.tree.structure(model.variables)
    jax.tree.map(np.testing.assert_array_equal, variables, model.variables)


def test_smp_file_has_the_peers_names_and_the_models_description(tmp_path):
    model = make_model(CELL, encoder="densenet121")
    out = export_model(model, "smp", tmp_path / "weights.safetensors")
    with safe_open(out, "numpy") as file:
        assert len(file.keys()) == 787
        info = ModelInfo.from_json(json.loads(file.metadata()["isl_jax"]))
    assert info == model.info
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_onnx_graph_computes_what_segmentation_models_pytorch_computed():
    oracle = np.load(ORACLE)
    model = make_model(CELL, encoder="densenet121")
    (found,) = run_onnx(network_bytes(model), oracle["x"].astype(np.float32))
    expected = oracle["eval2"]
    assert np.abs(found - expected).max() < 2e-4 * np.abs(expected).max()


def test_onnx_is_ours_for_sizes_off_the_grid(cell_model, images):
    content = onnx_bytes(cell_model)  # compares a batch of 2 × 70 × 97 with ours within 1e-4
    (both,) = run_onnx(content, images)
    (first,) = run_onnx(content, images[:1])
    assert both.shape == (2, 2, 70, 97)
    np.testing.assert_allclose(first, both[:1], atol=1e-5)
    (small,) = run_onnx(content, images[:, :, :17, :32])
    assert small.shape == (2, 2, 17, 32) and np.isfinite(small).all()


def test_onnx_maps_are_activated_and_in_units(cell_model, images):
    (raw,) = run_onnx(network_bytes(cell_model), images)
    distance, probability = run_onnx(maps_bytes(cell_model), images)
    np.testing.assert_allclose(distance, 40 * raw[:, :1], rtol=1e-6)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-raw[:, 1:])), atol=1e-6)
    scales = StainScale(100.0, 3000.0), StainScale(0.0, 1.0, "field")
    for task, scale, expected in (
        (SEMANTIC, None, lambda x: 1 / (1 + np.exp(-3 * (x - 0.5)))),
        (Task("stain"), scales[0], lambda x: 100 + 2900 * x),
        (Task("stain"), scales[1], scales[1].unscale),
    ):
        model = make_model(task, stain_scale=scale)
        (raw,), (found,) = (run_onnx(f(model), images) for f in (network_bytes, maps_bytes))
        np.testing.assert_allclose(found, expected(raw), rtol=1e-4, atol=1e-4)


def test_a_wrong_export_is_refused():
    with pytest.raises(RuntimeError, match=r"onnxruntime gives outputs that differ .* 5.0e-01"):
        check_equal(np.full(3, 0.5), np.zeros(3), "onnxruntime")
    with pytest.raises(RuntimeError, match="differ"):
        check_equal(np.full(3, np.nan), np.zeros(3), "onnxruntime")


def test_stablehlo_runs_without_our_code_at_any_batch_size(cell_model):
    content = stablehlo_bytes(cell_model)  # compares a batch of 2 × 64 × 96 with ours within 1e-4
    exported = jax.export.deserialize(bytearray(content))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    batch, height, width, channels = exported.in_avals[0].shape
    assert channels == 3 and not any(isinstance(size, int) for size in (batch, height, width))
    with pytest.raises(ValueError, match="32"):
        exported.call(jnp.zeros((1, 70, 97, 3)))


# bioimageio.core leaves its archives open.
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
def test_bioimageio_package_reproduces_our_maps(cell_model, tmp_path):
    core = pytest.importorskip(
        "bioimageio.core", reason="BioImage.IO is not installed: pip install 'isl-jax[export]'"
    )
    out = tmp_path / "model.zip"
    export_model(cell_model, "bioimageio", out, name="Cells: [test]", author="A. Name")
    with zipfile.ZipFile(out) as package:
        assert {"weights.onnx", "test_distance.npy", "model.json"} <= set(package.namelist())
    summary = core.test_model(out)
    assert summary.status == "passed"


@pytest.mark.parametrize(
    ("format_name", "package"), [("onnx", "onnxruntime"), ("bioimageio", "bioimageio.spec")]
)
def test_a_missing_package_is_named_with_the_remedy(
    format_name, package, cell_model, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"{package.split('.')[0]}.*isl-jax\[export\]"):
        export_model(cell_model, format_name, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_is_named(cell_model, tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        export_model(cell_model, "smp", tmp_path)
    with pytest.raises(ValueError, match="in no existing folder"):
        export_model(cell_model, "smp", tmp_path / "none" / "x")
    with pytest.raises(ValueError, match="'keras': choose one of smp"):
        export_model(cell_model, "keras", tmp_path / "x")
    for link in ("file", "nothing"):
        (tmp_path / "file").write_text("kept")
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(tmp_path / link)
        with pytest.raises(ValueError, match=r"link: is a link.*--out"):
            export_model(cell_model, "smp", tmp_path / "link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


@pytest.mark.parametrize("shape", [(200, 333), (128, 128), (17, 40)])
def test_planes_are_made_flat_inside_the_graph(shape):
    model = make_model(Task("stain"), normalisation=NORMALISATIONS["flat"])
    rng = np.random.default_rng(0)
    raw = ndimage.gaussian_filter(rng.random((3, *shape)), (0, 3, 3)) * 60_000
    raw[:, :16, :16] = 0
    raw = raw.astype(np.uint16)
    standardised = measured(raw, PAPER).apply(np.moveaxis(raw, 0, -1))
    (found,) = run_onnx(maps_bytes(model), np.moveaxis(standardised, -1, 0)[None])
    with jax.default_matmul_precision("highest"):
        expected = model.predict(raw).stain
        papers = Model(dataclasses.replace(model.info, normalisation=PAPER), model.variables)
        other = papers.predict(raw).stain
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-4 * largest)
    assert np.abs(other - expected).max() > 1e-2 * largest
