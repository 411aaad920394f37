"""A data set with more labels: what is shared, what is new, what is refused."""

import numpy as np
import pytest

from isl_jax.data.relabelled import with_labels
from isl_jax.data.store import INPUTS, LABELS, open_dataset


@pytest.fixture
def unlabelled(dataset, tmp_path):
    """The data set of the room, field `a` of which has lost its labels."""
    import json
    import shutil

    root = tmp_path / "data"
    shutil.copytree(dataset.root, root)
    (root / "fields" / "a" / LABELS).unlink()
    record = json.loads((root / "dataset.json").read_text())
    next(f for f in record["fields"] if f["name"] == "a")["has_labels"] = False
    (root / "dataset.json").write_text(json.dumps(record))
    return open_dataset(root)


def test_labels_are_added_and_all_else_is_as_it_was(unlabelled, tmp_path):
    labels = np.zeros((80, 96), np.int32)
    labels[10:20, 10:20], labels[40:60, 50:70] = 3, 70000
    with_labels(unlabelled, {"a": labels}, tmp_path / "new", source="somewhere")
    new = open_dataset(tmp_path / "new")
    np.testing.assert_array_equal(new.labels("a"), labels)
    for field in unlabelled.fields:
        np.testing.assert_array_equal(new.inputs(field.name), unlabelled.inputs(field.name))
        assert new.field(field.name).split == field.split
        if field.has_labels:
            np.testing.assert_array_equal(new.labels(field.name), unlabelled.labels(field.name))
    assert not open_dataset(unlabelled.root).field("a").has_labels
    # Pixels are not copied where they can be shared.
    same = new.path("b", INPUTS).stat().st_ino == unlabelled.path("b", INPUTS).stat().st_ino
    assert same


def test_real_labels_are_never_overwritten(unlabelled, tmp_path):
    labels = np.ones((80, 96), np.int32)
    with pytest.raises(ValueError, match=r"'b' has labels already"):
        with_labels(unlabelled, {"b": labels}, tmp_path / "new", source="")
    with pytest.raises(ValueError, match=r"80 × 96 pixels, its new labels are 40 × 48"):
        with_labels(unlabelled, {"a": labels[:40, :48]}, tmp_path / "new", source="")
    with pytest.raises(ValueError, match="no field 'z'"):
        with_labels(unlabelled, {"z": labels}, tmp_path / "new", source="")
    assert not (tmp_path / "new").exists()
