import pytest
from hypothesis import given
from hypothesis import strategies as st

from isl_jax.data.splits import (
    SPLITS,
    check_disjoint,
    split_by_files,
    split_by_fraction,
    split_by_groups,
)

GROUPS = {"a1": "a", "a2": "a", "b1": "b", "c1": "c", "c2": "c"}

groups_strategy = st.dictionaries(
    st.integers(0, 200).map("f{}".format), st.integers(0, 8).map("g{}".format), min_size=1
).filter(lambda groups: len(set(groups.values())) >= 3)


@given(groups_strategy, st.floats(0, 0.49), st.floats(0, 0.49), st.integers(0, 2**32 - 1))
def test_whole_groups_on_one_side_and_every_set_that_is_asked_for(groups, test, val, seed):
    split_of = split_by_fraction(groups, test=test, val=val, seed=seed)
    assert split_of.keys() == groups.keys()
    check_disjoint(groups, split_of)
    present = set(split_of.values())
    assert "train" in present
    assert ("test" in present) == (test > 0) and ("val" in present) == (val > 0)


@given(groups_strategy, st.integers(0, 2**32 - 1))
def test_the_test_set_does_not_depend_on_the_validation_fraction(groups, seed):
    sets = [
        {name for name, split in split.items() if split == "test"}
        for split in (split_by_fraction(groups, test=0.2, val=val, seed=seed) for val in (0.1, 0.3))
    ]
    assert sets[0] == sets[1]


def test_fractions_are_met_when_groups_are_single_fields():
    groups = {f"f{k}": f"f{k}" for k in range(100)}
    split_of = split_by_fraction(groups, test=0.2, val=0.1, seed=0)
    assert [list(split_of.values()).count(split) for split in SPLITS] == [70, 10, 20]
    assert split_of == split_by_fraction(groups, test=0.2, val=0.1, seed=0)
    assert split_of != split_by_fraction(groups, test=0.2, val=0.1, seed=1)


def test_too_few_groups_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"1 group of fields .* --test=0 or --val=0"):
        split_by_fraction({"a1": "a", "a2": "a"}, test=0.2, val=0, seed=0)
    with pytest.raises(ValueError, match="must be ≥ 0 and leave a rest"):
        split_by_fraction(GROUPS, test=0.7, val=0.3, seed=0)


def test_named_groups():
    split_of = split_by_groups(GROUPS, test=["a"], val=["b"])
    assert split_of == {"a1": "test", "a2": "test", "b1": "val", "c1": "train", "c2": "train"}
    with pytest.raises(ValueError, match="group 'd' does not exist; groups are a, b, c"):
        split_by_groups(GROUPS, test=["d"])
    with pytest.raises(ValueError, match="'a' is named for test and for val"):
        split_by_groups(GROUPS, test=["a"], val=["a"])
    with pytest.raises(ValueError, match="no group is left to train on"):
        split_by_groups(GROUPS, test=["a", "b"], val=["c"])


def test_split_files_leave_out_what_they_do_not_name(tmp_path):
    (tmp_path / "train.txt").write_text("c1\n# comment\n\n c2 \n")
    (tmp_path / "test.txt").write_text("a1\na2\n")
    assert split_by_files(GROUPS, tmp_path) == {
        "c1": "train", "c2": "train", "a1": "test", "a2": "test"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("c1\n", "c2\n", r"group 'c' is in train \(field 'c1'\) and in test \(field 'c2'\)"),
        ("c1\nx\n", "a1\n", r"train.txt: field 'x' does not exist"),
        ("c1\n", "c1\n", r"test.txt: field 'c1' is also in train.txt"),
        ("\n", "c1\n", r"train.txt: names no field"),
        ("c1\n", None, r"test.txt: no such file"),
    ],
)
def test_wrong_split_files_are_named(tmp_path, train, test, message):
    (tmp_path / "train.txt").write_text(train)
    if test is not None:
        (tmp_path / "test.txt").write_text(test)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        split_by_files(GROUPS, tmp_path)


def test_a_list_with_a_mark_of_its_bytes_is_read_and_one_in_another_code_is_named(tmp_path):
    groups = {"é1": "é1", "b": "b"}
    (tmp_path / "train.txt").write_text("é1\n", encoding="utf-8-sig")
    (tmp_path / "test.txt").write_text("b\n")
    assert split_by_files(groups, tmp_path) == {"é1": "train", "b": "test"}
    (tmp_path / "train.txt").write_text("é1\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"train\.txt: is no text in UTF-8 .*save it as UTF-8"):
        split_by_files(groups, tmp_path)
