"""Evaluation against scores worked out here by hand, and its files."""

import csv
import json
import math

import numpy as np
import pytest
import tifffile

from isl_jax.data.crops import CropPlan
from isl_jax.inference.model import Prediction
from isl_jax.ingest.labels import read_label_image
from isl_jax.ingest.listing import stem_of_image
from isl_jax.study import evaluate
from isl_jax.study.evaluate import evaluate_labels, evaluate_run
from isl_jax.study.records import (
    evaluation_folder,
    read_prediction,
    read_rows,
    recorded_crops,
    save_prediction,
    write_rows,
)
from isl_jax.study.scoring import score


@pytest.fixture
def use(monkeypatch):
    """`use(model)` makes every workdir hold that model."""
    return lambda model: monkeypatch.setattr(evaluate, "load_model", lambda *_, **__: model)


def brute_force_map(truth: np.ndarray, labels: np.ndarray) -> float:
    precisions = []
    true_ids, ids = set(truth.flat) - {0}, set(labels.flat) - {0}
    for threshold in np.arange(50, 100, 5) / 100:
        hits = 0
        for i in true_ids:
            for j in ids:
                both = np.sum((truth == i) & (labels == j))
                either = np.sum((truth == i) | (labels == j))
                hits += both / either >= threshold
        precisions.append(hits / (len(true_ids) + len(ids) - hits))
    return float(np.mean(precisions))


def test_score_of_a_stain_is_pearson():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 60_000, size=(20, 30)).astype(np.uint16)
    stain = (truth / 60_000 + rng.normal(0, 0.2, size=truth.shape)).astype(np.float32)
    expected = np.corrcoef(truth.ravel(), stain.ravel())[0, 1]
    assert score("pcc", Prediction(stain=stain), truth) == {"pcc": pytest.approx(expected)}


def test_score_of_a_semantic_map_is_iou():
    truth = np.array([[0, 4, 4], [0, 0, 9]], np.int32)
    probability = np.array([[0.6, 0.7, 0.5], [0.1, 0.0, 0.9]], np.float32)
    # 0.5 itself is background: 2 of 4 pixels in common.
    assert score("iou", Prediction(probability=probability), truth) == {"iou": 0.5}


def test_score_of_instances_is_map_with_its_parts():
    truth = np.zeros((12, 12), np.int32)
    truth[:5, :5], truth[6:11, 6:11], truth[0:3, 8:11] = 3, 900, 70_000
    labels = np.zeros_like(truth)
    labels[:5, :4], labels[6:11, 6:11], labels[8:10, 0:3] = 1, 2, 3
    scores = score("map", Prediction(labels=labels), truth)
    assert scores["map"] == pytest.approx(brute_force_map(truth, labels))
    assert scores["ap_0.50"] == pytest.approx(2 / 4) and scores["ap_0.95"] == pytest.approx(1 / 5)
    assert scores["f1"] == pytest.approx(4 / 6)
    assert (scores["num_true"], scores["num_predicted"]) == (3, 3)


def test_a_cell_that_the_crop_cuts_in_two_stays_one():
    truth = np.zeros((6, 9), np.int32)
    truth[:, 1:3] = truth[:, 6:8] = 5  # a horseshoe whose bend lies outside the crop
    assert score("map", Prediction(labels=truth * 2), truth)["map"] == 1.0
    assert score("map", Prediction(labels=truth), truth)["num_true"] == 1


@pytest.mark.parametrize(
    ("study", "target", "metric"),
    [
        ("nucleus", "stain", "pcc"),
        ("nucleus", "semantic", "iou"),
        ("cell", "stain", "pcc"),
        ("cell", "distance_and_semantic", "map"),
    ],
)
def test_files_agree_with_each_other(
    tmp_path, make_dataset, fake_model, use, study, target, metric
):
    dataset = make_dataset(tmp_path / "data", study)
    use(fake_model(target, 0.3))
    summary = evaluate_run(tmp_path / "run", dataset, CropPlan(40, 3))
    folder = tmp_path / "run" / "evaluation"
    stored = json.loads((folder / "summary.json").read_text())
    assert stored["metric"] == summary.metric == metric
    assert recorded_crops(stored) == summary.test_crops == CropPlan(40, 3)
    for over, images in (("crops", 4 * 3), ("fields", 4)):
        rows = read_rows(folder / f"{over}.csv")
        values = [row[metric] for row in rows]
        assert stored[over]["count"] == len(values) == images
        assert stored[over]["mean"] == pytest.approx(np.mean(values))
        assert stored[over]["std"] == pytest.approx(np.std(values))
    field = dataset.select("test")[1]
    kind = {"pcc": "stain", "iou": "probability", "map": "labels"}[metric]
    predicted = read_prediction(tmp_path / "run", field.name, kind, (field.height, field.width))
    assert predicted is not None and predicted.shape == (field.height, field.width)
    assert summary.table().splitlines()[1].split()[0] == metric


def test_scores_are_those_of_the_field_and_of_its_crops(tmp_path, make_dataset, fake_model, use):
    dataset = make_dataset(tmp_path / "data", "cell")
    model = fake_model("distance_and_semantic", 0.2)
    use(model)
    evaluate_run(tmp_path / "run", dataset, CropPlan(40, 2))
    folder = tmp_path / "run" / "evaluation"
    for row in read_rows(folder / "fields.csv"):
        image = dataset.standardised(row["field"])
        labels = model.predict_standardised(image[None])[0].labels
        assert row["map"] == pytest.approx(brute_force_map(dataset.labels(row["field"]), labels))
    row = read_rows(folder / "crops.csv")[3]
    window = np.s_[int(row["top"]) : int(row["top"]) + 40, int(row["left"]) : int(row["left"]) + 40]
    labels = model.predict_standardised(dataset.standardised(row["field"])[window][None])[0].labels
    truth = dataset.labels(row["field"])[window]
    assert row["map"] == pytest.approx(brute_force_map(truth, labels))


def test_every_run_is_scored_on_the_same_crops(tmp_path, make_dataset, fake_model, use):
    dataset = make_dataset(tmp_path / "data", "nucleus")
    crops = []
    for run, noise in (("a", 0.1), ("b", 0.9)):
        use(fake_model("semantic", noise))
        evaluate_run(tmp_path / run, dataset, CropPlan(40))
        rows = read_rows(tmp_path / run / "evaluation" / "crops.csv")
        crops.append([(row["field"], row["top"], row["left"]) for row in rows])
    assert crops[0] == crops[1] and len(crops[0]) == 4 * 5
    assert {name for name, *_ in crops[0]} == {f.name for f in dataset.select("test")}


def test_fields_smaller_than_the_crop_are_scored_whole(tmp_path, make_dataset, fake_model, use):
    dataset = make_dataset(tmp_path / "data", "nucleus", size=(50, 96))
    use(fake_model("semantic", 0.3))
    evaluate_run(tmp_path / "run", dataset, CropPlan(64, 2))
    rows = read_rows(tmp_path / "run" / "evaluation" / "crops.csv")
    assert len(rows) == 8 and all(row["top"] == 0 for row in rows)


def test_network_sees_one_shape_of_crops(tmp_path, make_dataset, fake_model, use):
    dataset = make_dataset(tmp_path / "data", "nucleus")
    shapes = set()

    class Recording(fake_model):
        def predict_standardised(self, images):
            shapes.add(images.shape)
            return super().predict_standardised(images)

    use(Recording("semantic", 0.3))
    evaluate_run(tmp_path / "run", dataset, CropPlan(96, 40))
    assert shapes == {(1, 96, 112, 3), (40, 96, 96, 3)}  # 17 positions, the rest is filler


def test_validation_scores_do_not_pass_for_test_scores(tmp_path, make_dataset, fake_model, use):
    dataset = make_dataset(tmp_path / "data", "nucleus")
    use(fake_model("semantic"))
    evaluate_run(tmp_path / "run", dataset, CropPlan(40), split="train")
    assert not (tmp_path / "run" / "evaluation").exists()
    assert (evaluation_folder(tmp_path / "run", "train") / "summary.json").exists()


def test_no_crop_with_signal_is_reported_not_nan(tmp_path, make_dataset, fake_model, use):
    dataset = make_dataset(tmp_path / "data", "nucleus")
    for field in dataset.select("test"):
        file = dataset.root / "fields" / field.name / "labels.npy"
        np.save(file, np.zeros_like(np.load(file)))
    use(fake_model("semantic"))
    summary = evaluate_run(tmp_path / "run", dataset, CropPlan(40))
    assert summary.crops.count == 0 and math.isnan(summary.crops.mean)
    assert len(summary.dropped) == 4 and "without a crop" in summary.table()
    text = (tmp_path / "run" / "evaluation" / "summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["crops"]["mean"] is None


def test_a_failure_keeps_the_scores_of_before(tmp_path, make_dataset, fake_model, use):
    dataset = make_dataset(tmp_path / "data", "nucleus")
    use(fake_model("semantic"))
    before = evaluate_run(tmp_path / "run", dataset, CropPlan(40))

    class Breaking(fake_model):
        def predict_standardised(self, images):
            raise RuntimeError("out of memory")

    use(Breaking("semantic"))
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate_run(tmp_path / "run", dataset, CropPlan(40))
    stored = json.loads((tmp_path / "run" / "evaluation" / "summary.json").read_text())
    assert stored["fields"]["mean"] == before.fields.mean


def test_bad_input_is_named_and_writes_nothing(tmp_path, make_dataset, fake_model, use):
    dataset = make_dataset(tmp_path / "data", "cell")
    run = tmp_path / "run"
    use(fake_model("distance_and_semantic", channels=("phase",)))
    with pytest.raises(ValueError, match=r"has channels bf0, bf1, pc.*trained on phase"):
        evaluate_run(run, dataset, CropPlan())
    use(fake_model("distance_and_semantic", h=None))
    with pytest.raises(ValueError, match="no marker contrast"):
        evaluate_run(run, dataset, CropPlan())
    use(fake_model("distance_and_semantic"))
    with pytest.raises(ValueError, match=r"no field of split 'val' has labels"):
        evaluate_run(run, dataset, CropPlan(), split="val")
    assert not run.exists()


def score_labels(masks, run, dataset, plan):
    return evaluate_labels(
        masks,
        run,
        dataset,
        plan,
        read=read_label_image,
        stem_of=stem_of_image,
    )


def write_masks(folder, dataset, *, suffix: str, dtype=np.uint16):
    folder.mkdir(exist_ok=True)
    for field in dataset.select("test"):
        labels = np.roll(dataset.labels(field.name), 2, axis=1)
        tifffile.imwrite(folder / f"{field.name}{suffix}", labels.astype(dtype))


@pytest.mark.parametrize("suffix", [".tif", "_cp_masks.tif", ".ome.tif"])
def test_label_images_of_another_program(tmp_path, make_dataset, suffix):
    dataset = make_dataset(tmp_path / "data", "cell")
    write_masks(tmp_path / "masks", dataset, suffix=suffix)
    # Text files and masks of other fields do no harm.
    (tmp_path / "masks" / "log.txt").write_text("")
    tifffile.imwrite(tmp_path / "masks" / "other_cp_masks.tif", np.zeros((2, 2), np.uint8))
    summary = score_labels(tmp_path / "masks", tmp_path / "run", dataset, CropPlan(40, 2))
    expected = [
        brute_force_map(dataset.labels(f.name), np.roll(dataset.labels(f.name), 2, axis=1))
        for f in dataset.select("test")
    ]
    assert summary.metric == "map" and summary.fields.mean == pytest.approx(np.mean(expected))
    assert len(read_rows(tmp_path / "run" / "evaluation" / "crops.csv")) == 8


def test_bad_label_images_are_named(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "cell")
    masks, run = tmp_path / "masks", tmp_path / "run"
    with pytest.raises(FileNotFoundError, match="masks: no such folder"):
        score_labels(masks, run, dataset, CropPlan())
    write_masks(masks, dataset, suffix="_a.tif")
    write_masks(masks, dataset, suffix="_b.tif")
    with pytest.raises(ValueError, match=r"needs one label image.*_a.tif, well2 s1_b.tif"):
        score_labels(masks, run, dataset, CropPlan())
    write_masks(masks, dataset, suffix=".tif")
    tifffile.imwrite(masks / "well3 s1.tif", np.zeros((5, 5), np.uint8))
    with pytest.raises(ValueError, match=r"well3 s1.tif: is 5 × 5 pixels, field .* 96 × 112"):
        score_labels(masks, run, dataset, CropPlan(40))
    assert list(run.iterdir()) == []


def test_whole_numbered_floats_are_ids(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path / "data", "cell")
    scores = []
    for dtype in (np.uint16, np.float32):
        write_masks(tmp_path / "masks", dataset, suffix=".tif", dtype=dtype)
        run = tmp_path / np.dtype(dtype).name
        scores.append(score_labels(tmp_path / "masks", run, dataset, CropPlan(40, 2)).fields.mean)
    assert scores[0] == scores[1] > 0


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda labels: np.stack([labels * 0, labels]), "planes|images|channels"),
        (lambda labels: labels.astype(np.float32) + 0.5, "whole"),
        (lambda labels: labels.astype(np.int16) - 1, "negative|-1"),
        (
            lambda labels: np.stack([labels, labels + 1, labels + 2], axis=-1),
            "colour|plane",
        ),
    ],
    ids=["stack", "halves", "negative", "colour"],
)
def test_what_is_no_label_image_is_refused_by_name(tmp_path, make_dataset, made, told):
    dataset = make_dataset(tmp_path / "data", "cell")
    write_masks(tmp_path / "masks", dataset, suffix=".tif")
    name = dataset.select("test")[0].name
    image = made(dataset.labels(name))
    is_colour = image.shape[-1] == 3
    image = image.astype(np.uint8) if is_colour else image
    photometric = "rgb" if is_colour else "minisblack"
    file = tmp_path / "masks" / f"{name}.tif"
    tifffile.imwrite(file, image, photometric=photometric)
    with pytest.raises(ValueError, match=told) as raised:
        score_labels(tmp_path / "masks", tmp_path / "run", dataset, CropPlan(40))
    assert str(raised.value).startswith(str(file))


def test_many_objects_keep_their_ids(tmp_path):
    labels = np.arange(300 * 300, dtype=np.int32).reshape(300, 300)
    save_prediction(tmp_path / "evaluation" / "predictions", "f", Prediction(labels=labels))
    np.testing.assert_array_equal(read_prediction(tmp_path, "f", "labels", labels.shape), labels)


def test_rows_survive_awkward_field_names(tmp_path):
    rows = [{"field": 'a, "b"\n1', "iou": 0.1}, {"field": "0012", "iou": 1 / 3}]
    write_rows(tmp_path / "rows.csv", rows)
    assert read_rows(tmp_path / "rows.csv") == rows
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["field", "iou"]
