"""The step Predict without Qt: layers to planes, maps to labels, labels to files."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile

from isl_jax.inference.folder import read_record
from isl_jax.inference.info import PostProcessing
from isl_jax.inference.large import OpenedImage
from isl_jax.inference.model import load_model, save_model
from isl_jax.viewer.predicting import (
    Predicted,
    Request,
    first_options,
    highest_h,
    opened,
    planes_of,
    predict,
)
from isl_jax.viewer.selection import Shown

PLANES = np.arange(3 * 4 * 6).reshape(3, 4, 6)
BF = ("bf1", "bf2", "phase")


def shown(name, number, **more):
    return Shown(name, PLANES[number], **more)


@pytest.mark.parametrize(
    ("images", "channels", "expected"),
    [
        ([shown("x", 0), shown("y", 1), shown("z", 2)], BF, [0, 1, 2]),  # in order
        ([shown("w1_phase", 0), shown("w1_BF2", 1), shown("w1_bf1", 2)], BF, [2, 1, 0]),  # named
        ([Shown("stack", PLANES)], BF, [0, 1, 2]),
        ([shown("anything", 1)], ("phase",) * 3, [1, 1, 1]),  # one plane, repeated
        ([shown("x_bf", 0), shown("x_phase", 1)], ("phase", "phase", "bf"), [1, 1, 0]),
    ],
)
def test_layers_become_the_planes_of_the_model(images, channels, expected):
    np.testing.assert_array_equal(planes_of(images, channels), PLANES[expected])


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ([], "select the image in the layer list; the model takes 3 planes .bf1, bf2, phase."),
        ([shown("x", 0), shown("y", 1)], "2 planes are selected, the model takes 3"),
        ([Shown("rgb", PLANES, is_colour=True)], "'rgb' is in colour"),
        ([shown("x", 0), Shown("y", PLANES[0, 1:])], r"differ in size .x \(4, 6\), y \(3, 6\)"),
    ],
)
def test_layers_that_do_not_fit_are_refused_in_words(images, told):
    with pytest.raises(ValueError, match=told):
        planes_of(images, BF)


def test_an_opened_image_is_named_placed_and_binned_as_the_model_wants(make_model, tmp_path):
    info = make_model("semantic", channels=("phase",) * 3, binning=2).info
    image = opened([shown("hela2_phase", 0, path=tmp_path / "x.tif")], info, (0.5, 0.25))
    assert image.name == "hela2" and image.spacing == (1.0, 0.5) and image.binning == 2
    assert image.paths == (tmp_path / "x.tif",)
    expected = PLANES[0].reshape(2, 2, 3, 2).mean((1, 3))
    np.testing.assert_array_equal(image.planes[2], np.rint(expected))
    assert opened([shown("a/b: c", 0)], info).name == "a_b_ c"


def test_a_model_without_h_begins_with_one_that_suits_its_map(make_model):
    info = make_model("distance_and_semantic", postprocessing=PostProcessing(sigma=1.5)).info
    assert first_options(info) == PostProcessing(h=100.0, sigma=1.5) and highest_h(info) == 255
    assert first_options(make_model("semantic").info) == PostProcessing()


@pytest.fixture
def found(make_model, make_planes, tmp_path) -> Predicted:
    """A prediction of a stored model."""
    model = make_model("distance_and_semantic")
    save_model(tmp_path / "model", model.info, model.variables)
    image = OpenedImage("w1", make_planes(64, 80), (), (0.5, 0.5))
    found = predict(load_model(tmp_path / "model"), image)
    # Maps with something in them: two discs that touch.
    rows, columns = np.mgrid[:64, :80]
    distance = [12 - np.hypot(rows - 30, columns - middle) for middle in (25, 45)]
    distance = np.maximum(np.max(distance, 0), 0).astype(np.float32) * 10
    maps = np.stack([distance, np.clip(distance, 0, 1)])
    assert found.maps.shape == maps.shape and found.maps.dtype == np.float32
    return Predicted(found.info, image, maps)


def test_maps_are_read_again_without_the_network(found):
    apart = found.read(PostProcessing(h=5)).labels
    joined = found.read(PostProcessing(h=110)).labels
    assert apart.max() == 2 and joined.max() == 1
    np.testing.assert_array_equal(apart > 0, joined > 0)
    assert found.read(PostProcessing(h=5, min_size=10_000)).labels.max() == 0


def test_an_image_is_saved_as_the_command_saves_it(found, tmp_path):
    raw = tmp_path / "w1.tif"
    tifffile.imwrite(raw, np.asarray(found.image.planes), photometric="minisblack")
    options = PostProcessing(h=5)
    request = Request(
        str(tmp_path / "model"), str(raw), str(tmp_path / "out"), ("labels", "table"), options
    )
    prediction = found.read(options)
    record = request.save(found, prediction)
    assert record.files == ["w1_labels.tif", "w1.csv"] and record.num_objects == 2
    written = tifffile.imread(tmp_path / "out" / "w1_labels.tif")
    np.testing.assert_array_equal(written, prediction.labels)
    stored = read_record(tmp_path / "out", "w1")
    assert stored is not None and (stored.size, stored.spacing) == ([64, 80], [0.5, 0.5])
    # What was drawn by hand stays, whoever predicts the image again.
    request.save(found, prediction, corrected=True)
    assert read_record(tmp_path / "out", "w1_corrected").files[0] == "w1_corrected_labels.tif"
    assert (tmp_path / "out" / "w1_labels.tif").exists()


def test_files_of_others_are_not_replaced(found, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "w1_labels.tif").write_text("mine")
    request = Request(
        str(tmp_path / "model"), "", str(tmp_path / "out"), ("labels",), PostProcessing(h=5)
    )
    with pytest.raises(ValueError, match="is there, and was not written by isl-predict"):
        request.save(found, found.read(request.options))
    with pytest.raises(ValueError, match="choose the folder to save into"):
        Request(request.model, "", "", ("labels",), request.options).save(
            found, found.read(request.options)
        )


def test_the_command_line_says_what_differs_from_the_model(found):
    own = found.info.postprocessing
    request = Request("W 1", "a b.tif", "OUT", ("labels", "table"), own)
    line = shlex.split(str(request.command(found.info)))
    assert line == [
        "isl-predict",
        "--model=W 1",
        "--input=a b.tif",
        "--out=OUT",
        "--outputs=labels,table",
    ]
    moved = PostProcessing(h=0.0, threshold=0.25, min_size=7, fill_holes=True)
    words = Request("W", "I", "O", ("labels",), moved).command(found.info).words
    assert words[1:3] == ["-m", "isl_jax.launch.predict"]
    assert words[-4:] == ["--h=0", "--threshold=0.25", "--min_size=7", "--fill_holes=True"]
    assert str(Request("", "", "", (), own).command(None)) == (
        "isl-predict --model=MODEL --input=IMAGES --out=OUT"
    )
    assert Path(words[0]).exists()
