import json
import pickle
import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from isl_jax.data.coverage import annotated_subset
from isl_jax.data.normalisation import NORMALISATIONS, PAPER, Levels, measure
from isl_jax.data.stain import StainScale
from isl_jax.data.store import Dataset, Field, open_dataset


def test_arrays_are_the_raw_files_memory_mapped_in_their_own_dtype(dataset):
    raw = dataset.root.parent / "raw"
    for field in dataset.fields:
        inputs, stain = dataset.inputs(field.name), dataset.stain_image(field.name)
        assert isinstance(inputs, np.memmap) and inputs.dtype == stain.dtype == np.uint16
        assert inputs.shape == (field.height, field.width, 3)
        phase = tifffile.imread(raw / f"{field.name}_phase.tif")
        np.testing.assert_array_equal(inputs[..., 0], phase)
        np.testing.assert_array_equal(inputs[..., 1], phase)
        np.testing.assert_array_equal(
            inputs[..., 2], tifffile.imread(raw / f"{field.name}_bright.tif")
        )
        np.testing.assert_array_equal(stain, tifffile.imread(raw / f"{field.name}_dapi.tif"))
        labels = dataset.labels(field.name)
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, tifffile.imread(raw / f"{field.name}_masks.tif"))


def test_standardised_uses_each_planes_own_statistics(dataset):
    out = dataset.standardised("a")
    inputs = np.asarray(dataset.inputs("a"))
    flat = inputs.reshape(-1, 3)
    np.testing.assert_allclose(out, Levels(flat.mean(0), flat.std(0)).apply(inputs), atol=1e-4)
    np.testing.assert_allclose(out.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std((0, 1)), 1, atol=1e-5)


def test_any_field_can_be_had_by_another_normalisation(dataset, flat_dataset):
    assert (dataset.normalisation, flat_dataset.normalisation.kind) == (PAPER, "flat")
    for normalisation in NORMALISATIONS.values():
        inputs = np.asarray(dataset.inputs("a"))
        expected = measure(normalisation, inputs).apply(inputs)
        for one in (dataset, flat_dataset):
            np.testing.assert_array_equal(one.standardised("a", normalisation), expected)
    np.testing.assert_array_equal(
        flat_dataset.standardised("a"), dataset.standardised("a", flat_dataset.normalisation)
    )


def test_stains_are_scaled_by_the_field_where_the_data_set_says_so(dataset, flat_dataset):
    assert dataset.field_stain_scale("a") == dataset.stain_scale
    assert flat_dataset.stain_scale == StainScale(0, 1, "field")
    for name in "ab":
        scale = flat_dataset.field_stain_scale(name)
        assert scale == StainScale.from_field(flat_dataset.stain_image(name))
    assert (dataset.without_signal, flat_dataset.without_signal) == ((), ("d",))
    assert not flat_dataset.field_stain_scale("d").scale(flat_dataset.stain_image("d")).any()


def test_description_of_the_data_set(dataset):
    assert dataset.channels == ("phase", "phase", "bright")
    assert (dataset.study, dataset.stain, dataset.pixel_size) == ("cell", "dapi", None)
    train = [dataset.stain_image(field.name) for field in dataset.select("train")]
    pooled = np.concatenate([stain.ravel() for stain in train])
    expected = np.percentile(pooled, (0.1, 99.9))
    assert (dataset.stain_scale.low, dataset.stain_scale.high) == pytest.approx(expected)


def test_a_data_set_can_be_sent_to_another_process(dataset):
    dataset.inputs("a")
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy == dataset
    np.testing.assert_array_equal(copy.inputs("a"), dataset.inputs("a"))


def test_select_by_split(dataset):
    assert [field.name for field in dataset.select("train", labels=True)] == ["a", "b", "c", "d"]
    assert [field.name for field in dataset.select("test", stain=True)] == ["f"]
    with pytest.raises(ValueError, match="split 'all' is none of train, val, test"):
        dataset.select("all")


def test_annotated_subsets_are_nested_and_drawn_from_the_training_fields(dataset):
    drawn = set()
    for seed in range(10):
        subsets = [annotated_subset(dataset, n, seed) for n in range(1, 5)]
        for n, subset in enumerate(subsets, 1):
            assert subset == subsets[-1][:n] and len(subset) == n
            assert all(field.split == "train" and field.has_labels for field in subset)
        drawn.add(subsets[0][0].name)
    assert len(drawn) > 1
    for n in (0, 5):
        with pytest.raises(ValueError, match="there are 4; choose N between 1 and 4"):
            annotated_subset(dataset, n, 0)


def test_without_labels_the_remedy_is_named(dataset):
    fields = tuple(replace(field, has_labels=False) for field in dataset.fields)
    with pytest.raises(ValueError, match=r"no training field has labels .* isl-prepare --labels="):
        annotated_subset(replace(dataset, fields=fields), 1, 0)


def test_data_sets_of_before_are_the_papers(dataset, tmp_path):
    copy = shutil.copytree(dataset.root, tmp_path / "copy")
    description = json.loads((copy / "dataset.json").read_text())
    del description["normalisation"], description["stain_scale"]["rule"]
    description["schema"] = 1
    (copy / "dataset.json").write_text(json.dumps(description))
    older = open_dataset(copy)
    assert replace(older, root=dataset.root) == dataset


def test_unusable_folders_are_refused_in_one_line(dataset, flat_dataset, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"absent: no such folder; make it with isl-prepare --out"
    ):
        open_dataset(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"is not a prepared data set .* with isl-prepare"):
        open_dataset(tmp_path)
    copy = shutil.copytree(flat_dataset.root, tmp_path / "flat")
    (copy / "fields" / "a" / "background.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"a/background.npy: is missing"):
        open_dataset(copy)
    copy = shutil.copytree(dataset.root, tmp_path / "copy")
    description = json.loads((copy / "dataset.json").read_text())
    (copy / "fields" / "a" / "inputs.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"a/inputs.npy: is missing"):
        open_dataset(copy)
    (copy / "dataset.json").write_text(json.dumps(description | {"schema": 99}))
    with pytest.raises(ValueError, match="has schema 99"):
        open_dataset(copy)
    (copy / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        open_dataset(copy)


def test_absent_fields_and_arrays_are_named(dataset):
    with pytest.raises(ValueError, match="no field 'zz'"):
        dataset.inputs("zz")


def test_few_fields_stay_mapped_however_many_are_read(tmp_path):
    field = Field("", "", "train", 4, 5, True, False, (0.0,), (1.0,))
    fields = tuple(replace(field, name=f"f{k}") for k in range(40))
    for number, item in enumerate(fields):
        folder = tmp_path / "fields" / item.name
        folder.mkdir(parents=True)
        np.save(folder / "inputs.npy", np.full((4, 5, 1), number, np.uint16))
    dataset = Dataset(tmp_path, "cell", ("a",), "s", StainScale(0, 1), fields)
    for _ in range(2):
        maps = []
        for number, item in enumerate(fields):
            image = dataset.inputs(item.name)
            assert isinstance(image, np.memmap) and (image == number).all()
            maps.append(weakref.ref(image))
        del image
        assert 1 <= sum(ref() is not None for ref in maps) <= 16


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.pop("channels"), "has no 'channels'"),
        (lambda d: d.update(stain_scale=[]), "stain_scale is no table"),
        (lambda d: d.update(fields={}), "fields is no list"),
        (lambda d: d["fields"][1].update(height="9"), "height is '9', expected a whole number"),
        (lambda d: d["fields"][1].update(height=0), "no pixels"),
        (lambda d: d["fields"][0]["input_mean"].append(1), "has not . channels"),
        (lambda d: d["fields"][0]["input_std"].__setitem__(0, float("inf")), "a finite number"),
        (lambda d: d["fields"][0].update(name="../../etc"), "no name of a folder"),
        (lambda d: d["fields"][0].update(name=d["fields"][1]["name"]), "two fields of one name"),
    ],
)
def test_a_damaged_description_is_named(dataset, tmp_path, change, told):
    copy = shutil.copytree(dataset.root, tmp_path / "copy")
    description = json.loads((copy / "dataset.json").read_text())
    change(description)
    (copy / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=rf"dataset\.json: damaged \(.*{told}.*prepare the data"):
        open_dataset(copy)


def test_a_damaged_array_is_named(dataset, tmp_path):
    copy = open_dataset(shutil.copytree(dataset.root, tmp_path / "copy"))
    path = copy.path("a", "labels.npy")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"a/labels\.npy: damaged .*prepare the data set again"):
        copy.labels("a")
