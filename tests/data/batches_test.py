import json

import numpy as np
import pytest

from isl_jax.data.batches import (
    CropSource,
    evaluation_batches,
    load_crop,
    resident_arrays,
    resident_bytes,
    training_batches,
    training_order,
)
from isl_jax.data.crops import Crop, CropPlan, FreshCrops, fixed_crops
from isl_jax.data.targets import distance_map
from isl_jax.task import Kind, Task

PLAN = CropPlan(24, 3)
STAIN, SEMANTIC, INSTANCES = map(Task, Kind)


@pytest.fixture(scope="module")
def crops(dataset):
    return fixed_crops(dataset, dataset.select("train"), "any_label", PLAN)[0]


def take(iterator, count):
    batches = [next(iterator) for _ in range(count)]
    iterator.close()
    return batches


def same(left, right):
    return len(left) == len(right) and all(
        a.keys() == b.keys() and all(a[key].tobytes() == b[key].tobytes() for key in a)
        for a, b in zip(left, right, strict=True)
    )


def all_variants(dataset, crops, **changes):
    options = {"batch_size": 5, "seed": 4} | changes
    return training_batches(CropSource(dataset, crops, INSTANCES), **options)


@pytest.mark.parametrize("fresh", [False, True])
def test_batches_are_the_same_bytes_for_any_number_of_workers(dataset, crops, fresh):
    chosen = FreshCrops(dataset, dataset.select("train"), "any_label", PLAN) if fresh else crops
    one = take(all_variants(dataset, chosen), 11)
    for workers in (1, 4):
        assert same(one, take(all_variants(dataset, chosen, num_workers=workers), 11))


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("step", [0, 1, 2, 3, 6, 11])
def test_resume_at_any_step_with_another_number_of_workers(dataset, crops, step, fresh):
    chosen = FreshCrops(dataset, dataset.select("train"), "any_label", PLAN) if fresh else crops
    iterator = all_variants(dataset, chosen, num_workers=2)
    for _ in range(step):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = take(iterator, 4)
    resumed = all_variants(dataset, chosen)
    resumed.set_state(state)
    assert same(expected, take(resumed, 4))


def test_each_epoch_holds_every_crop_once_in_a_new_order(dataset, crops):
    assert len(crops) == 12
    batches = take(all_variants(dataset, crops, batch_size=4), 6)
    expected = sorted(load_crop(dataset, crop, SEMANTIC)["image"].tobytes() for crop in crops)
    orders = []
    for epoch in (batches[:3], batches[3:]):
        images = [image.tobytes() for batch in epoch for image in batch["image"]]
        assert sorted(images) == expected
        orders.append(images)
    assert orders[0] != orders[1]


def test_shards_are_parts_of_the_global_batch(dataset, crops):
    whole = take(all_variants(dataset, crops, batch_size=6), 5)
    parts = [take(all_variants(dataset, crops, batch_size=6, shard=(k, 2)), 5) for k in range(2)]
    for batch, even, odd in zip(whole, *parts, strict=True):
        for key in batch:
            np.testing.assert_array_equal(batch[key][0::2], even[key])
            np.testing.assert_array_equal(batch[key][1::2], odd[key])


def test_batches_can_be_larger_than_the_crop_set(dataset, crops):
    (batch,) = take(all_variants(dataset, crops[:3], batch_size=8), 1)
    assert batch["image"].shape == (8, 24, 24, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_gives_every_crop_once_and_pads_the_last_batch(dataset, crops, workers):
    source = CropSource(dataset, crops, SEMANTIC)
    batches = list(evaluation_batches(source, batch_size=5, num_workers=workers))
    assert [batch["image"].shape[0] for batch in batches] == [5, 5, 5]
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    whole = resident_arrays(source)
    for key, value in whole.items():
        np.testing.assert_array_equal(joined[key][:12], value)
    assert not joined["weight"][12:].any()


def test_resident_arrays_take_the_memory_announced(dataset, crops):
    source = CropSource(dataset, crops, INSTANCES)
    arrays = resident_arrays(source)
    assert sum(array.nbytes for array in arrays.values()) == resident_bytes(source)


def test_impossible_requests_are_refused_in_one_line(dataset, crops):
    with pytest.raises(ValueError, match="no crop to train on"):
        all_variants(dataset, ())
    with pytest.raises(ValueError, match="batch size 5 does not divide over 2 processes"):
        all_variants(dataset, crops, shard=(0, 2))
    with pytest.raises(ValueError, match="no crop to evaluate"):
        evaluation_batches(CropSource(dataset, (), STAIN), batch_size=2)


@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_the_order_alone_picks_the_crops_of_the_batches(dataset, crops, shard):
    source = CropSource(dataset, crops, STAIN)
    whole = resident_arrays(source)
    recipe = {"batch_size": 4, "seed": 4, "shard": shard}
    batches = training_batches(source, **recipe)
    order = training_order(len(crops), **recipe)
    next(batches)
    order.set_state(batches.get_state())
    picked = [next(order)["index"] for _ in range(9)]
    order.close()
    found = [{key: array[index] for key, array in whole.items()} for index in picked]
    assert same(take(batches, 9), found)


@pytest.mark.parametrize("scale", ["normalised", "pixels"])
@pytest.mark.parametrize("peaks", ["single", "all"])
@pytest.mark.parametrize("name", ["a", "b", "d"])
def test_distance_of_a_crop_is_cut_from_the_whole_fields_map(dataset, name, scale, peaks):
    whole = distance_map(np.asarray(dataset.labels(name)), scale, peaks)
    task = Task(Kind.INSTANCES, distance_scale=scale, distance_unit=2, distance_peaks=peaks)
    drawn, _ = fixed_crops(dataset, [dataset.field(name)], "any", CropPlan(17, 30))
    for crop in drawn:
        sample = load_crop(dataset, crop, task)
        window = np.s_[crop.top : crop.top + 17, crop.left : crop.left + 17]
        np.testing.assert_array_equal(sample["target"][..., 0], whole[window] / 2)
        np.testing.assert_array_equal(sample["target"][..., 1], dataset.labels(name)[window] > 0)


@pytest.mark.parametrize("is_flat", [False, True])
def test_image_and_stain_of_a_crop_are_cut_from_the_whole_field(dataset, flat_dataset, is_flat):
    dataset = flat_dataset if is_flat else dataset
    crop = Crop("c", 11, 30, 48)
    sample = load_crop(dataset, crop, STAIN)
    window = np.s_[11:59, 30:78]
    np.testing.assert_array_equal(sample["image"], dataset.standardised("c")[window])
    scaled = dataset.field_stain_scale("c").scale(dataset.stain_image("c")[window])
    np.testing.assert_array_equal(sample["target"][..., 0], scaled)
    assert sample["weight"].shape == (48, 48, 1) and sample["weight"].all()
    assert {array.dtype for array in sample.values()} == {np.dtype(np.float32)}


def test_a_crop_past_its_field_is_reflected_and_weighs_nothing_there(dataset):
    sample = load_crop(dataset, Crop("d", 0, 4, 48), SEMANTIC)
    assert sample["image"].shape == (48, 48, 3)
    assert sample["weight"][:40].all() and not sample["weight"][40:].any()
    np.testing.assert_array_equal(sample["image"][40:], sample["image"][31:39][::-1])
    np.testing.assert_array_equal(sample["target"][40:], sample["target"][31:39][::-1])
