"""Model folders: round trips, what they refuse, and what predictions mean."""

import json

import flax.linen as nn
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import ndimage

from isl_jax.data.stain import StainScale
from isl_jax.inference import model as inference
from isl_jax.inference.info import ModelInfo, NetworkInfo, PostProcessing
from isl_jax.inference.model import Model, load_model, save_model, set_postprocessing
from isl_jax.task import Task

SIZE = 64


class TwoConvolutions(nn.Module):
    """Stands in for the U-Net where its size would only cost time."""

    out_channels: int

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Conv(self.out_channels, (1, 1))(nn.Conv(4, (3, 3))(x))


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setattr(
        inference, "build_network", lambda *, out_channels, **_: TwoConvolutions(out_channels)
    )


def info(target, **changes):
    values = {
        "study": "cell" if target == "distance_and_semantic" else "nucleus",
        "stage": "pretrain" if target == "stain" else "segment",
        "network": NetworkInfo("densenet121", "none", 1 + (target != "stain"), 3),
        "task": Task(target),
        "channels": ("bf1", "bf2", "phase"),
    }
    if target == "semantic":
        values["network"] = NetworkInfo("densenet121", "none", 1, 3)
    return ModelInfo(**values | changes)


def variables(out_channels):
    network = TwoConvolutions(out_channels)
    drawn = network.init(jax.random.key(1), np.zeros((1, 8, 8, 3), np.float32))
    return jax.tree.map(np.asarray, drawn)


@pytest.fixture
def planes():
    rng = np.random.default_rng(0)
    return ndimage.gaussian_filter(rng.random((3, SIZE, SIZE)), (0, 4, 4)) * 60_000


def test_a_model_comes_back_from_its_folder_as_it_was(tmp_path, planes):
    described = info(
        "stain", stain="dapi", stain_scale=StainScale(100.0, 4000.0), training={"step": 7}
    )
    save_model(tmp_path / "model", described, variables(1))
    for path in (tmp_path, tmp_path / "model"):  # the workdir of the run will do as well
        loaded = load_model(path)
        assert loaded.info == described
        expected = Model(described, variables(1)).predict(planes)
        np.testing.assert_array_equal(loaded.predict(planes).stain, expected.stain)


def test_prediction_does_not_depend_on_brightness_and_contrast(planes):
    model = Model(info("semantic"), variables(1))
    once = model.predict(planes).probability
    brighter = planes * np.array([2.0, 0.5, 3.0])[:, None, None] + 100
    np.testing.assert_allclose(model.predict(brighter).probability, once, atol=1e-4)


def test_one_plane_serves_a_model_trained_on_it_repeated(planes):
    model = Model(info("semantic", channels=("phase",) * 3), variables(1))
    expected = model.predict(np.stack([planes[0]] * 3)).probability
    np.testing.assert_array_equal(model.predict(planes[0]).probability, expected)


@pytest.mark.parametrize("shape", [(2, SIZE, SIZE), (SIZE, SIZE), (SIZE, SIZE, 3)])
def test_other_planes_are_refused_by_their_names(shape):
    model = Model(info("semantic"), variables(1))
    with pytest.raises(ValueError, match="bf1, bf2, phase"):
        model.predict(np.zeros(shape))


def test_cell_predictions_are_labels_in_the_semantic_mask(planes):
    model = Model(info("distance_and_semantic", postprocessing=PostProcessing(h=5.0)), variables(2))
    found = model.predict(planes)
    assert found.distance.dtype == np.float32
    assert found.labels.dtype == np.int32
    assert not found.labels[found.probability <= 0.5].any()
    assert found.labels.max() > 0
    without_h = Model(info("distance_and_semantic"), variables(2)).predict(planes)
    assert without_h.labels is None


def test_how_maps_are_read_can_be_set_afterwards(tmp_path):
    save_model(tmp_path, info("distance_and_semantic"), variables(2))
    set_postprocessing(tmp_path, PostProcessing(h=12.5))
    assert load_model(tmp_path).info == info(
        "distance_and_semantic", postprocessing=PostProcessing(h=12.5)
    )


@pytest.mark.parametrize("how", ["shape", "missing", "NaN", "integers", "cut", "names"])
def test_weights_that_are_not_the_models_are_named_when_loaded(tmp_path, how):
    save_model(tmp_path, info("distance_and_semantic"), variables(2))
    file = tmp_path / "weights.safetensors"
    arrays = load_file(file)
    name = next(iter(arrays))
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        changed = {
            "shape": {name: arrays[name][..., :-1]},
            "NaN": {name: np.full_like(arrays[name], np.nan)},
            "integers": {name: np.ones(3, np.int32)},
            "names": {f"{name}/x": arrays[name]},
        }.get(how, {})
        kept = {k: v for k, v in arrays.items() if how != "missing" or k != name} | changed
        save_file({k: np.ascontiguousarray(v) for k, v in kept.items()}, file)
    with pytest.raises(ValueError, match=r"weights\.safetensors: .*copy the model again"):
        load_model(tmp_path)


def test_model_json_keeps_its_layout(tmp_path):
    """What versions before `Task` wrote, and read, to the key."""
    task = Task("distance_and_semantic", "shifted_sigmoid", 3.0, "pixels", 20.0)
    options = PostProcessing(h=7.0, min_size=5)
    described = info("distance_and_semantic", task=task, postprocessing=options)
    save_model(tmp_path, described, variables(2))
    stored = json.loads((tmp_path / "model.json").read_text())
    expected = {
        "objective": {
            "target": "distance_and_semantic",
            "activation": "shifted_sigmoid",
            "slope": 3.0,
        },
        "distance_scale": "pixels",
        "distance_unit": 20.0,
        "h": 7.0,
        "postprocessing": {
            "threshold": 0.5,
            "min_size": 5,
            "fill_holes": False,
            "keep_unmarked": False,
            "sigma": 0.0,
        },
    }
    assert {key: stored[key] for key in expected} == expected
    assert "task" not in stored
    assert load_model(tmp_path).info == described


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.json: no such file"):
        load_model(tmp_path)
    save_model(tmp_path, info("stain"), variables(1))
    whole = (tmp_path / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"weights\.safetensors: damaged"):
        load_model(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"weights\.safetensors: no such file"):
        load_model(tmp_path)
    save_model(tmp_path, info("stain"), variables(1))
    description = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(description | {"schema_version": 99}))
    with pytest.raises(ValueError, match="schema version 99"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ValueError, match=r"model\.json: damaged"):
        load_model(tmp_path)


def test_folders_of_earlier_versions_get_defaults(tmp_path):
    described = info("distance_and_semantic", postprocessing=PostProcessing(h=7.0))
    save_model(tmp_path, described, variables(2))
    stored = json.loads((tmp_path / "model.json").read_text())
    for key in ("postprocessing", "licence", "binning"):
        del stored[key]
    (tmp_path / "model.json").write_text(json.dumps(stored))
    assert load_model(tmp_path).info == described


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("channels", ["phase"], "names 1 channels .* network of 3 inputs"),
        ("objective", {"target": "cats"}, "objective.target is 'cats', expected one of stain"),
        ("postprocessing", {"threshold": 3}, "threshold 3"),
        ("h", -5, "h is -5"),
        ("stage", None, "has no 'stage'"),
    ],
)
def test_descriptions_that_make_no_sense_are_named(tmp_path, key, value, told):
    save_model(tmp_path, info("semantic"), variables(1))
    stored = json.loads((tmp_path / "model.json").read_text())
    stored[key] = value
    if value is None:
        del stored[key]
    (tmp_path / "model.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=rf"model\.json: .*{told}.*copy the model again"):
        load_model(tmp_path)
