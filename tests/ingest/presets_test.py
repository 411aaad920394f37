"""Layouts of the public sets: every registered file, and the genuine files against curated ones."""

import dataclasses

import numpy as np
import pytest

from isl_jax.ingest import readers
from isl_jax.ingest.checked import check_fields
from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.layouts import Role
from isl_jax.ingest.presets import PRESETS
from isl_jax.ingest.public import load_registry


@pytest.fixture(scope="module")
def matched(tmp_path_factory):
    """set → (fields by name, unmatched), from empty files with the names that are registered."""

    def match(name):
        root = tmp_path_factory.mktemp(name)
        for file in load_registry()[name].files:
            path = root / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        fields, unmatched = match_files(root, PRESETS[name])
        return {field.name: field for field in fields}, unmatched

    return match


def test_every_field_of_deepcell_has_phase_and_stain(matched):
    fields, unmatched = matched("deepcell2016")
    drawn = {
        *(f"3T3_set{k}" for k in (1, 2, 3)), *(f"HeLa_joint_set{k}" for k in range(1, 6)),
        *(f"RAW40X_set{k}" for k in (1, 2, 3)), "BMDM", "MCF10A",
        *(f"validation_{line}" for line in ("3T3", "HeLa", "MCF10A")),
    }  # fmt: skip
    undrawn = {
        *(f"testing_{line}_set1" for line in ("3T3", "HeLa", "MCF10A")),
        *(f"testing_{line}_set{k}" for line in ("BMDM", "MCF10A_3T3") for k in (1, 2)),
    }
    assert fields.keys() == drawn | undrawn
    for name, field in fields.items():
        masks = {"cell_interior", "cell_edge"} if name in drawn else set()
        assert field.files.keys() == {"phase", "nuclei"} | masks
    groups = {name: field.group for name, field in fields.items()}
    assert groups["HeLa_joint_set2"] == groups["HeLa_joint_set4"]  # the same cells twice
    assert len(set(groups.values())) == len(groups) - 1
    # What is not used has no partner: outlines in colour, nuclei alone, series without names.
    parts = ("/Masks/", "/nuclei/", "/HeLa_plating/", "TRITC", "/RAW40X/set4/", "/RAW40X/set5/")
    assert all(any(part in path.as_posix() for part in parts) for path in unmatched)


def test_fields_of_aisegcell_are_grouped_by_position(matched):
    fields, unmatched = matched("aisegcell")
    assert len(fields) == 14 and not [p for p in unmatched if "fig3/" in p.as_posix()]
    for name, field in fields.items():
        masks = set() if name.startswith("fig4 ") else {"nucleus_masks"}
        assert field.files.keys() == {"brightfield", "nuclei"} | masks
        assert len({part.path.name[:16] for (part,) in field.files.values()}) == 1
    movie = [field for field in fields.values() if field.name.startswith("fig4 ")]
    assert [field.group for field in movie] == ["230624DS30_p0018"] * 3


def test_every_file_of_usiigaci_is_used(matched):
    fields, unmatched = matched("usiigaci")
    assert len(fields) == 18 and not unmatched
    assert all(field.files.keys() == {"raw", "instances_ids"} for field in fields.values())


@pytest.fixture(scope="module")
def genuine(real_data):
    """Fields of the genuine files that lie beside the curated sets, by (labels, name)."""
    root = real_data.parent / "raw" / "deepcell2016"
    if not root.is_dir():
        pytest.skip(f"genuine files not found: {root} is absent")

    def load(name, labels, stain="nuclei"):
        layout = dataclasses.replace(PRESETS["deepcell2016"], labels=(labels,), stain=Role(stain))
        fields, _ = match_files(root, layout, exclude=rf"^(?!{name}$)")
        (checked,) = check_fields(fields, layout)
        return checked.load()

    return load


@pytest.mark.parametrize(
    ("name", "curated", "kind", "stain"),
    [
        ("HeLa_joint_set1", "hela1", "cell", "nuclei"),
        ("HeLa_joint_set1", "hela1", "nucleus", "nuclei"),
        ("HeLa_joint_set2", "hela2", "cell", "nuclei"),
        ("RAW40X_set1", "raw1", "cell", "nuclei"),
        ("RAW40X_set1", "raw1", "nucleus", "cytoplasm"),
    ],
)
def test_genuine_files_give_the_curated_images_and_instances(
    genuine, real_data, name, curated, kind, stain
):
    inputs, found_stain, labels = genuine(name, f"{kind}_interior+{kind}_edge", stain)

    def read(channel):
        return readers.read(real_data / "phase_hela_and_others" / f"{curated}_{channel}.tif")[0]

    for channel in range(3):
        np.testing.assert_array_equal(inputs[..., channel], read("phase"))
    np.testing.assert_array_equal(found_stain, read(stain))
    expected = read(f"{kind}_masks").astype(int)
    num, num_expected = labels.max(), expected.max()
    assert abs(num - num_expected) <= 0.02 * num_expected
    overlap = np.zeros((num + 1, num_expected + 1), int)
    np.add.at(overlap, (labels.ravel(), expected.ravel()), 1)
    union = overlap.sum(1)[:, None] + overlap.sum(0)[None] - overlap
    assert np.mean((overlap / union)[1:, 1:].max(axis=0) > 0.98) > 0.99
