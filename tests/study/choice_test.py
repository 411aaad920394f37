"""The suggested order of fields, and why it is that."""

import dataclasses

import numpy as np
import pytest

from isl_jax.data.store import INPUTS, STAIN, open_dataset
from isl_jax.study.annotated import SUGGESTION, annotated_fields, write_suggestion
from isl_jax.study.choice import drawn, suggest
from isl_jax.study.settings import DataSettings
from tests.annotate.conftest import FIELDS, dataset, prepared  # noqa: F401  (fixtures)


def names(suggestion) -> list[str]:
    return [item.name for item in suggestion.order]


def test_the_first_two_are_of_each_kind_and_every_line_has_a_reason(dataset):  # noqa: F811
    found = suggest(dataset, dataset.select("train"))
    assert {name[0] for name in names(found)[:2]} == {"c", "f"}
    assert sorted(names(found)) == sorted(FIELDS)
    assert found.order[0].reason.startswith("typical")
    assert found.order[1].reason.startswith("unlike those before it")
    assert [item.objects for item in found.order] == [FIELDS[n][1] for n in names(found)]
    assert found.places.keys() == FIELDS.keys() and not found.excluded


def test_what_is_annotated_already_is_not_suggested_again(dataset):  # noqa: F811
    given = [dataset.field("f3")]
    rest = [field for field in dataset.select("train") if field.name != "f3"]
    assert names(suggest(dataset, rest, given=given))[0].startswith("c")


def test_faults_leave_fields_out(dataset):  # noqa: F811
    from scipy import ndimage

    blurred = ndimage.gaussian_filter(dataset.inputs("f1").astype(float), (3, 3, 0))
    np.save(dataset.path("f1", INPUTS), blurred.astype(np.uint16))
    full = np.array(dataset.inputs("f2"))
    full[:20] = 4095
    np.save(dataset.path("f2", INPUTS), full)
    np.save(dataset.path("c1", STAIN), np.full_like(dataset.stain_image("c1"), 100))
    again = open_dataset(dataset.root)
    found = suggest(again, again.select("train"))
    assert sorted(names(found)) == ["c2", "f3"]
    assert found.excluded["f1"].startswith("out of focus")
    assert found.excluded["f2"].startswith("saturated (12")
    assert found.excluded["c1"] == "no object in its stain"
    with pytest.raises(ValueError, match="no field is fit to be annotated"):
        suggest(again, [again.field("f1")], others=again.select("train"))


def test_without_a_stain_images_alone_decide(dataset):  # noqa: F811
    bare = dataclasses.replace(
        dataset,
        stain=None,
        fields=tuple(dataclasses.replace(f, has_stain=False) for f in dataset.fields),
    )
    found = suggest(bare, bare.select("train"))
    assert {name[0] for name in names(found)[:2]} == {"c", "f"}
    assert all(item.objects is None for item in found.order)


def test_a_random_order_is_that_of_studies(dataset):  # noqa: F811
    assert names(drawn(dataset.select("train"), 3)) == names(drawn(dataset.select("train"), 3))


def settings(dataset, **options) -> DataSettings:  # noqa: F811
    return DataSettings(str(dataset.root), 64, 2, (0, 0, 0, 0), False, 0, **options)


@pytest.fixture
def labelled(dataset):  # noqa: F811
    fields = tuple(dataclasses.replace(f, has_labels=True) for f in dataset.fields)
    return dataclasses.replace(dataset, fields=fields)


def test_a_study_takes_the_first_n_of_one_order_whatever_its_seed(labelled, tmp_path):
    data = settings(labelled, choose="suggested")
    record = tmp_path / SUGGESTION
    one, found = annotated_fields(data, labelled, 1, 0, record)
    write_suggestion(found, record)
    for n in range(1, 6):
        fields, _ = annotated_fields(data, labelled, n, n, record)
        assert fields[0] == one[0] and len(fields) == n
    two, _ = annotated_fields(data, labelled, 2, 0, record)
    assert {field.name[0] for field in two} == {"c", "f"}
    with pytest.raises(ValueError, match="6 annotated training fields were asked for"):
        annotated_fields(data, labelled, 6, 0, record)


def test_a_record_counts_for_its_own_fields_only(labelled, tmp_path):
    data, record = settings(labelled, choose="suggested"), tmp_path / SUGGESTION
    _, found = annotated_fields(data, labelled, 1, 0, record)
    assert found is not None
    order = list(reversed(found["order"]))
    write_suggestion(found | {"order": order}, record)
    assert annotated_fields(data, labelled, 1, 0, record)[0][0].name == order[0]["name"]
    write_suggestion(found | {"order": order[1:]}, record)
    assert annotated_fields(data, labelled, 1, 0, record)[1] == found


def test_a_random_study_records_nothing(labelled, tmp_path):
    fields, found = annotated_fields(settings(labelled), labelled, 2, 0, tmp_path / SUGGESTION)
    assert found is None and len(fields) == 2
