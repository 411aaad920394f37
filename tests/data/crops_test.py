from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from isl_jax.data import crops
from isl_jax.data.crops import CropPlan, FreshCrops, fixed_crops, valid_positions


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**16), st.data())
def test_window_counts_equal_brute_force(height, width, seed, data):
    mask = np.random.default_rng(seed).random((height, width)) < 0.3
    rows = data.draw(st.integers(1, height))
    columns = data.draw(st.integers(1, width))
    counts = crops.window_counts(mask, rows, columns)
    assert counts.shape == (height - rows + 1, width - columns + 1)
    for y, x in np.ndindex(*counts.shape):
        assert counts[y, x] == mask[y : y + rows, x : x + columns].sum()


def brute_force_positions(dataset, field, size, rule, margin):
    """Every position tested by adding up all pixels of its window."""
    if rule == "stain_signal":
        stain = np.asarray(dataset.stain_image(field.name))
        signal, needed = stain > crops.stain_threshold(stain), np.ceil(1e-3 * size**2)
    elif rule == "any":
        signal, needed = np.ones((field.height, field.width), bool), 1
    else:
        signal = np.asarray(dataset.labels(field.name)) > 0
        needed = np.ceil(5000 / 512**2 * size**2) if rule == "foreground" else 1
    shape = (min(size, field.height), min(size, field.width))
    counts = sliding_window_view(signal, shape).sum((-1, -2))
    valid = np.zeros((field.height, field.width), bool)
    for y, x in np.ndindex(*counts.shape):
        inside = all(
            not before and not after
            if length < size
            else before * length <= start and start + size <= (1 - after) * length
            for start, length, before, after in (
                (y, field.height, *margin[:2]),
                (x, field.width, *margin[2:]),
            )
        )
        valid[y, x] = inside and counts[y, x] >= needed
    return valid


@pytest.mark.parametrize("rule", ["stain_signal", "foreground", "any_label", "any"])
@pytest.mark.parametrize("margin", [(0, 0, 0, 0), (1 / 3, 0, 0, 0.1)])
@pytest.mark.parametrize(("name", "size"), [("a", 9), ("b", 32), ("d", 48)])
def test_valid_positions_equal_brute_force(dataset, name, size, rule, margin):
    field = dataset.field(name)
    np.testing.assert_array_equal(
        valid_positions(dataset, field, rule, CropPlan(size, margin=margin)),
        brute_force_positions(dataset, field, size, rule, margin),
    )


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 80),
    st.integers(1, 7),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["stain_signal", "foreground", "any_label", "any"]),
    st.tuples(*[st.floats(0, 0.4)] * 4),
)
def test_crops_lie_inside_their_field_and_margins(dataset, size, per_image, seed, rule, margin):
    fields = dataset.select("train")
    drawn, dropped = fixed_crops(dataset, fields, rule, CropPlan(size, per_image, margin, seed))
    assert {crop.field for crop in drawn}.isdisjoint(dropped)
    assert {crop.field for crop in drawn} | set(dropped) == {field.name for field in fields}
    assert len(set(drawn)) == len(drawn)
    for crop in drawn:
        field = dataset.field(crop.field)
        for start, length, before, after in (
            (crop.top, field.height, *margin[:2]),
            (crop.left, field.width, *margin[2:]),
        ):
            if length < size:
                assert start == before == after == 0
            else:
                assert before * length <= start and start + size <= (1 - after) * length + 1e-9


def test_a_fields_crops_do_not_depend_on_the_other_fields(dataset):
    plan = CropPlan(32, seed=7)
    everything, _ = fixed_crops(dataset, dataset.select("train"), "any_label", plan)
    alone, _ = fixed_crops(dataset, [dataset.field("c")], "any_label", plan)
    assert alone == tuple(crop for crop in everything if crop.field == "c")
    assert len(alone) == 5
    other_seed, _ = fixed_crops(dataset, [dataset.field("c")], "any_label", replace(plan, seed=8))
    assert other_seed != alone


def test_fields_without_a_valid_crop_are_dropped_and_reported(dataset):
    fields = dataset.select("train")
    drawn, dropped = fixed_crops(dataset, fields, "any", CropPlan(41, margin=(0.1, 0, 0, 0)))
    assert dropped == ("d",)
    assert len(drawn) == 5 * (len(fields) - 1)


def test_fresh_crops_differ_between_epochs_and_obey_the_rule(dataset):
    fresh = FreshCrops(dataset, dataset.select("train"), "any_label", CropPlan(20, 4, seed=3))
    first = [fresh.crop(0, index) for index in range(len(fresh))]
    assert first == [fresh.crop(0, index) for index in range(len(fresh))]
    assert len(fresh) == 16
    assert sum(a != fresh.crop(1, index) for index, a in enumerate(first)) > 12
    for epoch in range(5):
        for index in range(len(fresh)):
            crop = fresh.crop(epoch, index)
            window = np.s_[crop.top : crop.top + 20, crop.left : crop.left + 20]
            pixels = dataset.labels(crop.field)[window]
            assert pixels.shape == (20, 20) and pixels.any()


def test_fresh_crops_are_uniform_over_valid_positions(dataset):
    field = replace(dataset.field("a"))
    fresh = FreshCrops(dataset, [field], "any", CropPlan(78, 1))
    counts = np.zeros((3, 19), int)
    for epoch in range(57 * 20):
        crop = fresh.crop(epoch, 0)
        counts[crop.top, crop.left] += 1
    assert counts.min() > 3 and counts.max() < 40  # 20 expected, ± 4 standard deviations


def test_a_noise_only_field_shows_no_stain_signal():
    noise = np.random.default_rng(0).normal(500, 20, (512, 512)).astype(np.uint16)
    assert (noise > crops.stain_threshold(noise)).mean() < 1e-4


def test_a_dim_nucleus_counts_as_stain_signal():
    stain = np.random.default_rng(0).normal(110, 4, (512, 512)).astype(np.uint16)
    stain[100:140, 200:240] += 80
    found = stain > crops.stain_threshold(stain)
    assert found[100:140, 200:240].mean() > 0.99 and found.sum() < 1650


def test_an_unknown_rule_is_named(dataset):
    with pytest.raises(ValueError, match="rule 'bright'"):
        valid_positions(dataset, dataset.field("a"), "bright", CropPlan(8))  # type: ignore
