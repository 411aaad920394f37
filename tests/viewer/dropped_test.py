"""Folders and files of ours on a viewer: what is read, and at which scale."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from isl_jax.data.crops import CropPlan
from isl_jax.inference.folder import Record, write_record
from isl_jax.outputs.rasters import write_labels, write_map
from isl_jax.outputs.table import write_table
from isl_jax.study import evaluate
from isl_jax.viewer.dropped import get_reader, read_layers

LABELS = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((10, 12), int)).astype(np.int32)


@pytest.fixture(autouse=True)
def _stacks(request):
    pytest.importorskip("dask.array")


def by_name(layers):
    return {shown["name"]: (data, shown, kind) for data, shown, kind in layers}


def test_a_prepared_data_set_is_a_stack_of_its_fields(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "cell")
    found = by_name(get_reader(str(tmp_path / "data"))(str(tmp_path / "data")))
    assert list(found) == ["bf0", "bf1", "pc", "DAPI (stain)", "labels", "fields"]
    name = dataset.fields[3].name
    np.testing.assert_array_equal(found["bf1"][0][3], dataset.inputs(name)[..., 1])
    np.testing.assert_array_equal(found["labels"][0][3], dataset.labels(name))
    np.testing.assert_array_equal(found["DAPI (stain)"][0][3], dataset.stain_image(name))
    assert found["bf0"][1]["scale"] == [1, 0.3, 0.3]
    assert found["bf0"][1]["units"] == ["pixel", "micrometer", "micrometer"]
    assert [found[n][1]["visible"] for n in ("bf0", "bf1", "DAPI (stain)")] == [True, False, False]
    assert found["fields"][1]["features"]["field"][2] == f"{dataset.fields[2].name} (test)"
    # Its description may be dropped as well.
    assert by_name(read_layers(str(tmp_path / "data" / "dataset.json"))).keys() == found.keys()


def test_an_evaluation_shows_truth_and_prediction_with_the_score(
    tmp_path, make_dataset, fake_model, monkeypatch
):
    dataset = make_dataset(tmp_path / "data", "cell")
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"data": {"root": str(dataset.root)}}))
    model = fake_model("distance_and_semantic", 0.3)
    monkeypatch.setattr(evaluate, "load_model", lambda *_, **__: model)
    summary = evaluate.evaluate_run(run, dataset, CropPlan(48, 2))
    found = by_name(read_layers(str(run / "evaluation")))
    names = ["bf0", "bf1", "pc", "DAPI (stain)", "truth", "distance", "probability", "labels"]
    assert list(found) == [*names, "fields"]
    tests = dataset.select("test", labels=True)
    np.testing.assert_array_equal(found["truth"][0][1], dataset.labels(tests[1].name))
    whole = dataset.standardised(tests[1].name, model.info.normalisation)
    expected = model.predict_standardised(whole[None])[0]
    np.testing.assert_array_equal(found["labels"][0][1], expected.labels)
    np.testing.assert_allclose(found["distance"][0][1], expected.distance, rtol=1e-3)
    titles = found["fields"][1]["features"]["field"]
    assert all("mAP 0." in title or "mAP 1." in title for title in titles)
    assert len(titles) == summary.fields.count


def test_predictions_lie_on_their_images(tmp_path):
    (tmp_path / "out" / "records").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        raw = tmp_path / f"{name}_phase.tif"
        tifffile.imwrite(raw, rng.integers(0, 9, (40, 48), dtype=np.uint16))
        write_labels(tmp_path / "out" / f"{name}_labels.tif", LABELS, binning=2)
        inputs = [[str(raw), 1, 1]]
        write_record(
            tmp_path / "out",
            Record(
                name, inputs, ["labels"], [f"{name}_labels.tif"], "x", [20, 24], None, 4, None, 2
            ),
        )
    found = by_name(read_layers(str(tmp_path / "out")))
    assert list(found) == ["phase", "labels", "fields"]
    phase, shown, _ = found["phase"]
    raw = tifffile.imread(tmp_path / "b_phase.tif")
    expected = np.rint(raw.reshape(20, 2, 24, 2).mean((1, 3)))
    np.testing.assert_array_equal(phase[1], expected)
    assert shown["scale"] == [1, 2, 2] and shown["translate"] == [0, 0.5, 0.5]
    np.testing.assert_array_equal(found["labels"][0][1], LABELS)
    assert found["fields"][1]["features"]["field"] == ["a (4 objects)", "b (4 objects)"]


def test_single_files_keep_their_scale(tmp_path):
    write_labels(tmp_path / "a_labels.tif", LABELS, spacing=(0.5, 0.25))
    write_map(tmp_path / "a_distance.tif", LABELS * 1.5, spacing=(0.5, 0.25))
    ((labels, shown, kind),) = read_layers(str(tmp_path / "a_labels.tif"))
    assert kind == "labels" and shown["scale"] == [0.5, 0.25] and shown["name"] == "a labels"
    np.testing.assert_array_equal(labels, LABELS)
    ((distance, shown, kind),) = read_layers(str(tmp_path / "a_distance.tif"))
    assert kind == "image" and shown["visible"] and distance.dtype == np.float32


@pytest.mark.parametrize("spacing", [None, (0.5, 0.5)])
def test_rows_of_a_table_are_points_on_their_objects(tmp_path, spacing):
    planes = np.zeros((1, *LABELS.shape), np.uint16)
    write_table(tmp_path / "a.csv", LABELS, planes, ["phase"], spacing=spacing)
    ((points, shown, kind),) = read_layers(str(tmp_path / "a.csv"))
    side = spacing[0] if spacing else 1
    np.testing.assert_allclose(points[1], [4.5 * side, 17.5 * side])
    assert kind == "points" and shown["features"]["id"] == [1, 2, 3, 4]
    assert shown["features"]["area_px"] == [120.0] * 4


def test_what_is_not_ours_is_left_to_others(tmp_path):
    (tmp_path / "some.csv").write_text("a,b\n1,2\n")
    tifffile.imwrite(tmp_path / "phase.tif", np.zeros((3, 3), np.uint8))
    paths = [tmp_path, *tmp_path.iterdir(), Path("/nowhere")]
    assert [get_reader(str(path)) for path in paths] == [None] * 4
    assert get_reader([str(tmp_path)]) is None
    with pytest.raises(ValueError, match="no prepared data set"):
        read_layers(str(tmp_path))


def test_a_folder_without_a_finished_image_says_so(tmp_path):
    (tmp_path / "records").mkdir()
    with pytest.raises(ValueError, match="no image has been predicted here yet"):
        read_layers(str(tmp_path))


def test_napari_opens_them_by_the_plugin(tmp_path, viewer, make_dataset):
    make_dataset(tmp_path / "data", "cell")
    viewer.open(str(tmp_path / "data"), plugin="isl-jax")
    labels = viewer.layers["labels"]
    assert labels.data.shape == (6, 96, 112) and labels.scale.tolist() == [1, 0.3, 0.3]
    assert len(viewer.layers["fields"].data) == 6
    viewer.layers.clear()
    viewer.open_sample("isl-jax", "cells")
    names = [layer.name for layer in viewer.layers]
    assert names == [f"simulated {n}" for n in ("dic 0", "dic 1", "dic 2", "membrane", "cells")]
    assert viewer.layers["simulated cells"].data.max() > 5
