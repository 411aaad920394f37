"""Partly annotated images, from the raw file to weights, crops, readings and scores."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from scipy import ndimage

from isl_jax.data.batches import load_crop
from isl_jax.data.crops import Crop, CropPlan
from isl_jax.data.partial import Partial, split_ignored
from isl_jax.data.store import open_dataset
from isl_jax.data.targets import distance_map
from isl_jax.inference.model import Prediction
from isl_jax.ingest.checked import check_fields, recipe_of
from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.images import AskForError
from isl_jax.instances.calibration import calibrate_instances, calibrate_semantic
from isl_jax.instances.matching import known_labels, match
from isl_jax.study.scoring import evaluate_fields
from isl_jax.task import Kind, Task
from isl_jax.training.losses import loss_parameters, task_loss
from tests.data.conftest import LAYOUT, prepare, prepare_raw, write_raw

SPLIT = {"a": "train", "b": "test"}
UNKNOWN = 65535


@pytest.fixture
def raw(tmp_path):
    write_raw(tmp_path / "raw", dict.fromkeys(SPLIT, (48, 64)))
    return tmp_path / "raw"


def draw_unknown(raw, name="a", value=UNKNOWN):
    """The right half of a field, unknown."""
    path = raw / f"{name}_masks.tif"
    labels = tifffile.imread(path).astype(np.uint16)
    labels[:, 32:] = value
    tifffile.imwrite(path, labels)
    return labels


def prepared(raw, out, *, ignore=UNKNOWN, **options):
    layout = dataclasses.replace(LAYOUT, ignore=ignore)
    fields, _ = match_files(raw, layout)
    recipe = recipe_of(layout, **options)
    return open_dataset(prepare(check_fields(fields, layout), SPLIT, out, recipe))


def test_a_value_drawn_for_it_is_no_cell_and_weighs_nothing(raw, tmp_path):
    labels = draw_unknown(raw)
    dataset = prepared(raw, tmp_path / "data")
    ignored = dataset.ignored("a")
    assert np.array_equal(ignored, labels == UNKNOWN) and dataset.ignored("b") is None
    assert np.array_equal(dataset.labels("a"), np.where(ignored, 0, labels))
    crop = Crop("a", 4, 16, 40)
    for task in (Task(Kind.SEMANTIC), Task(Kind.INSTANCES)):
        sample = load_crop(dataset, crop, task)
        inside = np.pad(~ignored[4:44, 16:56], [(0, 40 - 40), (0, 0)])
        assert np.array_equal(sample["weight"][..., 0], inside)
        assert sample["target"][..., -1][~inside].max() == 0
    # The stain is known everywhere.
    assert load_crop(dataset, crop, Task(Kind.STAIN))["weight"].all()
    # Maps are those of the cells that are drawn.
    whole = load_crop(dataset, Crop("a", 0, 0, 48), Task(Kind.INSTANCES, distance_unit=1.0))
    expected = distance_map(np.where(ignored, 0, labels))[:, :48]
    np.testing.assert_allclose(whole["target"][..., 0], expected, rtol=1e-6)


def test_loss_and_gradient_know_nothing_of_ignored_pixels(raw, tmp_path):
    draw_unknown(raw)
    dataset = prepared(raw, tmp_path / "data")
    rng = np.random.default_rng(0)
    for kind in (Kind.SEMANTIC, Kind.INSTANCES):
        task = Task(kind)
        sample = load_crop(dataset, Crop("a", 0, 16, 48), task)
        batch = {key: jnp.asarray(value[None]) for key, value in sample.items()}
        outputs = jnp.asarray(rng.normal(size=batch["target"].shape), jnp.float32)

        def loss(outputs, batch=batch, task=task):
            parameters = loss_parameters(task, 2.0)
            return task_loss(
                task.kind, outputs, batch["target"], batch["weight"], parameters
            )[0]  # fmt: skip

        gradient = np.asarray(jax.grad(loss)(outputs))
        out = np.broadcast_to(sample["weight"][None] == 0, gradient.shape)
        assert out.any() and not gradient[out].any() and gradient[~out].any()


def test_what_is_far_from_every_labelled_cell_is_unknown(raw, tmp_path):
    margin = 5.0
    dataset = prepare_raw(raw, tmp_path / "data", SPLIT, partial=Partial(margin, "^a$"))
    ids = tifffile.imread(raw / "a_masks.tif")
    there = np.argwhere(ids)
    y, x = np.mgrid[: ids.shape[0], : ids.shape[1]]
    nearest = np.min(
        np.hypot(y[..., None] - there[:, 0], x[..., None] - there[:, 1]), axis=-1
    )  # fmt: skip
    ignored = dataset.ignored("a")
    assert ignored is not None and np.array_equal(ignored, nearest > margin)
    assert dataset.ignored("b") is None
    record = json.loads((tmp_path / "data/dataset.json").read_text())
    assert record["partial"] == {"margin": margin, "fields": "^a$"}


def test_binned_pixels_are_ignored_where_most_of_theirs_are(raw, tmp_path):
    draw_unknown(raw)
    dataset = prepared(raw, tmp_path / "data", binning=2)
    ignored = dataset.ignored("a")
    assert ignored.dtype == bool and not ignored[:, :16].any() and ignored[:, 16:].all()


def test_scores_are_those_of_the_known_part(raw, tmp_path):
    """Whatever is predicted beyond it: the known half cut out and scored by itself."""
    draw_unknown(raw, "b")
    dataset = prepared(raw, tmp_path / "data")
    rng = np.random.default_rng(3)
    truth = np.asarray(dataset.labels("b"))[:, :32]
    guess = np.array(truth)
    guess[rng.random(guess.shape) < 0.1] = 0
    elsewhere = np.asarray(ndimage.label(rng.random((48, 32)) < 0.3)[0]) + 1000
    elsewhere[elsewhere == 1000] = 0
    labels = np.hstack([guess, elsewhere]).astype(np.int32)

    def predict(field, windows):
        whole = Prediction(probability=(labels > 0).astype(np.float32), labels=labels)
        return whole, [Prediction(labels=labels[w]) for w in windows]

    plan = CropPlan(32, 2)
    found = evaluate_fields(
        predict, dataset, plan, metric="map", split="test", folder=tmp_path / "evaluation"
    )  # fmt: skip
    expected = match(truth, guess)
    assert found.fields.mean == pytest.approx(expected.mean_ap)
    assert found.others["fields"]["num_predicted"].mean == expected.tp[0] + expected.fp[0]
    found = evaluate_fields(
        predict, dataset, plan, metric="iou", split="test", folder=tmp_path / "semantic"
    )  # fmt: skip
    both, either = ((guess > 0) & (truth > 0)).sum(), ((guess > 0) | (truth > 0)).sum()
    assert found.fields.mean == pytest.approx(both / either)


def test_an_object_counts_where_most_of_it_is_known():
    labels = np.zeros((4, 10), int)
    labels[0, 2:6], labels[1, 4:8], labels[2, 3:9] = 1, 2, 3
    ignored = np.zeros(labels.shape, bool)
    ignored[:, 5:] = True
    kept = known_labels(labels, ignored)
    assert set(np.unique(kept)) == {0, 1} and (kept == 1).sum() == 3


def test_calibration_does_not_see_ignored_pixels():
    """A threshold that invents objects in the unknown half is as good there as any."""
    rng = np.random.default_rng(0)
    truth = np.zeros((64, 128), np.int32)
    for k in range(12):
        truth[4 + 15 * (k // 4) : 14 + 15 * (k // 4), 4 + 15 * (k % 4) : 14 + 15 * (k % 4)] = k + 1
    truth[:, 64:] = 0
    noise = rng.random((64, 64)).astype(np.float32)
    probability = np.where(truth > 0, 0.9, 0.1).astype(np.float32)
    probability[:, 64:] = noise
    distance = distance_map(truth)
    distance[:, 64:] = 255 * noise
    ignored = np.zeros(truth.shape, bool)
    ignored[:, 64:] = True
    half = (distance[:, :64].copy(), probability[:, :64].copy(), truth[:, :64].copy())
    reading = calibrate_instances([distance], [probability], [truth], ignored=[ignored])
    assert reading == calibrate_instances(*([part] for part in half))
    reading = calibrate_semantic([probability], [truth], ignored=[ignored])
    assert reading == calibrate_semantic(*([part] for part in half[1:]))


@pytest.mark.parametrize("another", [12, 99])
def test_a_value_among_the_ids_is_refused(raw, tmp_path, another):
    labels = draw_unknown(raw, value=13)
    labels[0, :4] = another
    tifffile.imwrite(raw / "a_masks.tif", labels)
    with pytest.raises(AskForError, match=r"a_masks\.tif: pixels of the label 13 are .* up to \d"):
        prepared(raw, tmp_path / "data", ignore=13)
    assert not (tmp_path / "data").exists()


def test_the_highest_value_asks_for_the_option(raw, tmp_path):
    draw_unknown(raw)
    with pytest.raises(AskForError, match="look ignored") as told:
        prepared(raw, tmp_path / "data", ignore=None)
    assert told.value.by("--ignore=65535").endswith("say that they are (--ignore=65535)")


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (UNKNOWN, {}, r"field 'a' has no annotated pixel.*a_masks\.tif"),
        (0, {"partial": Partial(4)}, r"field 'a' holds no labelled cell.*a_masks\.tif"),
    ],
)
def test_a_field_that_says_nothing_is_named(raw, tmp_path, value, options, message):
    tifffile.imwrite(raw / "a_masks.tif", np.full((48, 64), value, np.uint16))
    with pytest.raises(ValueError, match=message):
        prepared(raw, tmp_path / "data", **options)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("margin", "fields"), [(0.0, ""), (float("nan"), ""), (5.0, "(")])
def test_settings_that_mean_nothing_are_refused(margin, fields):
    with pytest.raises(ValueError, match=r"margin|expression"):
        Partial(margin, fields)


def test_fully_annotated_labels_stay_as_they_are():
    labels = np.arange(12, dtype=np.int32).reshape(3, 4)
    ids, ignored = split_ignored(labels, None)
    assert ignored is None and np.array_equal(ids, labels)
