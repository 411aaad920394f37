"""Drafts in a data set, their quality, and Cellpose by a stand-in."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from isl_jax.annotate.drafting import (
    TABLE,
    Drafter,
    draft_fields,
    quality,
    stained_fields,
    write_drafts,
)
from isl_jax.data.store import LABELS, STAIN, open_dataset
from isl_jax.tabular import read_csv
from tests.annotate.conftest import FIELDS


def test_drafts_are_written_beside_labels_which_stay(dataset):
    before = dataset.path("f3", LABELS).read_bytes()
    found = write_drafts(dataset, Drafter())
    again = open_dataset(dataset.root)
    for name, (_, nuclei) in FIELDS.items():
        assert again.drafts(name).dtype == np.int32
        assert found[name].objects == again.drafts(name).max() == nuclei
        assert found[name].word == "good"
    assert dataset.path("f3", LABELS).read_bytes() == before
    rows = read_csv(dataset.root / TABLE, remedy="", text=["field", "split", "quality"])
    assert [row["field"] for row in rows] == list(stained_fields(dataset))
    with pytest.raises(ValueError, match="no draft image"):
        dataset.drafts("f1")  # opened before they were there


def test_processes_draft_what_one_does(dataset):
    names = stained_fields(dataset)[:2]
    one = list(draft_fields(dataset, names, Drafter()))
    two = list(draft_fields(dataset, names, Drafter(), workers=2))
    for (name, labels, worth), (other, same, equal) in zip(one, two, strict=True):
        assert (name, worth) == (other, equal)
        np.testing.assert_array_equal(labels, same)


def darken(dataset, names) -> None:
    for name in names:
        stain = np.load(dataset.path(name, STAIN))
        noise = np.random.default_rng(0).poisson(100, stain.shape).astype(stain.dtype)
        np.save(dataset.path(name, STAIN), noise)


def test_a_stain_that_shows_nothing_gets_no_draft(dataset):
    darken(dataset, ["c1"])
    found = write_drafts(dataset, Drafter())
    assert found["c1"].word == "empty"
    assert not open_dataset(dataset.root).field("c1").has_drafts


def test_nothing_is_written_where_no_stain_shows_anything(dataset):
    darken(dataset, [*FIELDS, "t"])
    before = sorted(dataset.root.rglob("*"))
    with pytest.raises(ValueError, match="no object was found in the stain of any field"):
        write_drafts(dataset, Drafter())
    assert sorted(dataset.root.rglob("*")) == before


def test_quality_of_perfect_missing_and_merged_objects(dataset):
    stain = np.asarray(dataset.stain_image("f3"))
    truth = np.asarray(dataset.labels("f3"))
    perfect = quality(truth, stain)
    assert perfect.word == "good" and perfect.objects == 16 and perfect.unlikely == 0
    half = quality(np.where(truth <= 6, truth, 0), stain)
    assert half.word == "poor" and half.explained < 0.5
    merged = np.where((truth > 0) & (truth <= 8), 1, truth)
    assert quality(merged, stain).unlikely == pytest.approx(1 / 9)
    assert quality(np.zeros_like(truth), stain).word == "empty"


def stand_in(monkeypatch, **classes) -> None:
    package, models = ModuleType("cellpose"), ModuleType("cellpose.models")
    vars(models).update(classes)
    vars(package)["models"] = models
    monkeypatch.setitem(sys.modules, "cellpose", package)
    monkeypatch.setitem(sys.modules, "cellpose.models", models)


def test_cellpose_drafts_where_it_is_installed(dataset, monkeypatch):
    def model(**asked):
        def evaluate(image, **options):
            masks = np.zeros(image.shape, np.uint16)
            masks[:9, :9] = 1
            return masks, [], [asked, options]

        return SimpleNamespace(eval=evaluate)

    stand_in(monkeypatch, CellposeModel=model)
    labels = Drafter("cellpose")(dataset, "f1")
    assert labels.dtype == np.int32 and labels.sum() == 81

    asked = []
    stand_in(monkeypatch, Cellpose=lambda **k: asked.append(k) or model(**k))
    Drafter("cellpose", "cells")(dataset, "f1")
    assert asked == [{"model_type": "cyto3"}]


def test_without_cellpose_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "cellpose", None)
    with pytest.raises(ValueError, match="pip install cellpose"):
        Drafter("cellpose")
