"""The step Predict, driven as a user drives it."""

import numpy as np
import pytest
import tifffile

from isl_jax.inference.folder import read_records
from isl_jax.inference.info import PostProcessing
from isl_jax.inference.model import Prediction, save_model
from isl_jax.viewer import predicting


@pytest.fixture
def folder(tmp_path, make_model, make_planes):
    """A stored model of one plane, and images that it takes."""
    model = make_model(
        "distance_and_semantic", channels=("phase",) * 3, postprocessing=PostProcessing(h=20.0)
    )
    save_model(tmp_path / "model", model.info, model.variables)
    for number in range(2):
        plane = make_planes(64, 80, channels=1, seed=number)[0]
        tifffile.imwrite(tmp_path / f"w{number}_phase.tif", plane)
    return tmp_path


@pytest.fixture
def discs(monkeypatch):
    """The network says, of any image, two discs that touch."""
    rows, columns = np.mgrid[:64, :80]
    distance = [12 - np.hypot(rows - 30, columns - middle) for middle in (25, 45)]
    distance = np.maximum(np.max(distance, 0), 0).astype(np.float32) * 10
    maps = np.stack([distance, np.clip(distance, 0, 1)])
    monkeypatch.setattr(
        predicting,
        "predict",
        lambda model, image: predicting.Predicted(model.info, image, maps),
    )


@pytest.fixture
def step(viewer, application, folder):
    # As the window gives it to plugins.
    from napari.utils._proxies import PublicOnlyProxy

    from isl_jax.viewer.predict_step import PredictStep

    step = PredictStep(PublicOnlyProxy(viewer))
    step.model_path.set(folder / "model")
    return step


def predict(step, wait):
    step.count.setText("")
    step.predict_button.click()
    wait(lambda: step.count.text() or step.told.styleSheet())


def test_the_network_sees_a_layer_as_the_command_sees_its_file(step, viewer, wait, folder):
    viewer.add_image(tifffile.imread(folder / "w0_phase.tif"), name="w0_phase", scale=(2, 2))
    predict(step, wait)
    assert step.told.text() == ""
    layers = viewer.layers
    names = [layer.name for layer in layers]
    assert names == ["w0_phase", "w0 distance", "w0 probability", "w0 labels"]
    from isl_jax.inference.model import load_model

    expected: Prediction = load_model(folder / "model").predict(layers["w0_phase"].data)
    np.testing.assert_allclose(layers["w0 distance"].data, expected.distance, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(layers["w0 labels"].data, expected.labels)
    assert layers["w0 labels"].scale.tolist() == [2, 2]
    assert not layers["w0 probability"].visible and layers["w0 labels"].visible


def test_sliders_read_the_stored_maps_anew(step, viewer, wait, discs, folder):
    viewer.add_image(np.zeros((64, 80), np.uint16), name="w0_phase")
    predict(step, wait)
    assert step.count.text().startswith("2 objects")
    before = viewer.layers["w0 labels"]
    step.count.setText("")
    step.sliders.h.setValue(110)
    wait(lambda: step.count.text().startswith("1 objects"))
    assert viewer.layers["w0 labels"].data.max() == 1
    assert viewer.layers["w0 labels"] is before
    assert f"--model={folder / 'model'}" in step.command.text and "--h=110" in step.command.text
    step.sliders.reset.click()
    wait(lambda: step.count.text().startswith("2 objects"))
    assert "--h" not in step.command.text
    assert len(viewer.layers) == 4


def test_what_is_drawn_by_hand_is_never_lost(step, viewer, wait, discs, folder):
    viewer.add_image(np.zeros((64, 80), np.uint16), name="w0_phase")
    predict(step, wait)
    viewer.layers["w0 labels"].paint((0, 0), 9)
    assert step.results.is_corrected
    step.out_path.set(folder / "out")
    step.save_button.click()
    wait(lambda: "w0_corrected_labels.tif" in step.told.text())
    assert tifffile.imread(folder / "out" / "w0_corrected_labels.tif")[0, 0] == 9
    step.sliders.h.setValue(110)
    wait(lambda: step.count.text().startswith("1 objects"))
    assert viewer.layers["w0 labels corrected"].data[0, 0] == 9
    assert viewer.layers["w0 labels"].data[0, 0] == 0


def test_files_are_found_opened_and_all_of_them_predicted(step, viewer, wait, discs, folder):
    step.images_path.set(f"{folder}/*.tif")
    assert [step.choice.itemText(i) for i in range(step.choice.count())] == ["w0", "w1"]
    step.choice.setCurrentText("w1")
    predict(step, wait)
    shown = viewer.layers["w1 phase"]
    np.testing.assert_array_equal(shown.data, tifffile.imread(folder / "w1_phase.tif"))
    for name in ("labels", "table", "maps", "zarr", "rois", "geojson", "overlay"):
        step.outputs.boxes[name].setChecked(True)
    step.out_path.set(folder / "out")
    step.save_button.click()
    wait(lambda: "w1_labels.tif" in step.told.text())
    (record,) = read_records(folder / "out")
    assert set(record.outputs) == {"labels", "table", "maps", "zarr", "rois", "geojson", "overlay"}
    assert not step.outputs.boxes["stain"].isEnabled()


def test_the_command_itself_is_started_on_all_files(step, monkeypatch, wait, folder):
    """With a model that any process can load: the tiny encoder, of chance weights."""
    from isl_jax.inference.info import ModelInfo, NetworkInfo
    from isl_jax.models import heads
    from isl_jax.models.variables import init_variables
    from isl_jax.task import Task

    network = heads.build_network(out_channels=1, encoder="tiny")
    info = ModelInfo(
        "nucleus", "segment", NetworkInfo("tiny", "none", 1, 1), Task("semantic"), ("phase",)
    )
    save_model(folder / "tiny", info, init_variables(network, in_channels=1, seed=0))
    step.model_path.set(folder / "tiny")
    step.images_path.set(f"{folder}/*.tif")
    step.out_path.set(folder / "all")
    ended = []
    step.running.ended.connect(ended.append)
    step.all_button.click()
    assert step.running.process is not None
    assert step.running.process.told == step.command.text
    wait(lambda: ended, 300)
    assert ended == [0] and step.bar.value() == 2
    assert {record.name for record in read_records(folder / "all")} == {"w0", "w1"}


def test_errors_are_told_in_words(step, viewer, wait, folder):
    predict(step, wait)
    assert "select the image in the layer list; the model takes 3 planes" in step.told.text()
    step.save_button.click()
    assert step.told.text() == "predict an image first"
    step.model_path.set(folder / "nothing")
    assert "model.json: no such file; name a model folder" in step.told.text()
    predict(step, wait)
    assert step.told.text().startswith("choose a model first")
    step.images_path.set(folder / "nothing")
    step.model_path.set(folder / "model")
    assert "nothing" in step.told.text() and step.told.styleSheet()
