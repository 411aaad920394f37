import json

import numpy as np
import pytest

from isl_jax.data.batches import (
    evaluation_batches,
    resident_arrays,
    resident_bytes,
    training_batches,
    training_order,
)
from isl_jax.data.crops import FreshCrops, fixed_crops
from isl_jax.data.samples import load_crop

RECIPE = {"size": 24, "per_image": 3, "seed": 0, "rule": "any_label"}


@pytest.fixture(scope="module")
def crops(dataset):
    return fixed_crops(dataset, dataset.select("train"), **RECIPE)[0]


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
    options = {"target": "distance_and_semantic", "batch_size": 5, "seed": 4} | changes
    return training_batches(dataset, crops, **options)


@pytest.mark.parametrize("fresh", [False, True])
def test_batches_are_the_same_bytes_for_any_number_of_workers(dataset, crops, fresh):
    chosen = FreshCrops(dataset, dataset.select("train"), **RECIPE) if fresh else crops
    one = take(all_variants(dataset, chosen), 11)
    for workers in (1, 4):
        for cache in (0, 1 << 30):
            iterator = all_variants(dataset, chosen, num_workers=workers, cache_bytes=cache)
            assert same(one, take(iterator, 11))


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("step", [0, 1, 2, 3, 6, 11])
def test_resume_at_any_step_with_another_number_of_workers(dataset, crops, step, fresh):
    chosen = FreshCrops(dataset, dataset.select("train"), **RECIPE) if fresh else crops
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
    expected = sorted(
        load_crop(dataset, crop, target="semantic")["image"].tobytes() for crop in crops
    )
    orders = []
    for epoch in (batches[:3], batches[3:]):
        images = [image.tobytes() for batch in epoch for image in batch["image"]]
        assert sorted(images) == expected
        orders.append(images)
    assert orders[0] != orders[1]


def test_without_shuffle_crops_come_in_order(dataset, crops):
    (batch,) = take(all_variants(dataset, crops, shuffle=False, target="stain"), 1)
    expected = [load_crop(dataset, crop, target="stain") for crop in crops[:5]]
    for key in ("image", "target", "weight"):
        np.testing.assert_array_equal(batch[key], np.stack([sample[key] for sample in expected]))


def test_one_epoch_without_repeat(dataset, crops):
    batches = list(all_variants(dataset, crops, repeat=False))
    assert len(batches) == 2  # 12 crops, whole batches of 5


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
    batches = list(
        evaluation_batches(dataset, crops, target="semantic", batch_size=5, num_workers=workers)
    )
    assert [batch["image"].shape[0] for batch in batches] == [5, 5, 5]
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    whole = resident_arrays(dataset, crops, target="semantic")
    for key, value in whole.items():
        np.testing.assert_array_equal(joined[key][:12], value)
    assert not joined["weight"][12:].any()


def test_resident_arrays_take_the_memory_announced(dataset, crops):
    arrays = resident_arrays(dataset, crops, target="distance_and_semantic")
    announced = resident_bytes(dataset, crops, target="distance_and_semantic")
    assert sum(array.nbytes for array in arrays.values()) == announced


def test_impossible_requests_are_refused_in_one_line(dataset, crops):
    with pytest.raises(ValueError, match="no crop to train on"):
        all_variants(dataset, ())
    with pytest.raises(ValueError, match="batch size 5 does not divide over 2 processes"):
        all_variants(dataset, crops, shard=(0, 2))
    with pytest.raises(ValueError, match="one epoch of 12 crops holds no batch of 13"):
        all_variants(dataset, crops, batch_size=13, repeat=False)
    with pytest.raises(ValueError, match="no crop to evaluate"):
        evaluation_batches(dataset, (), target="stain", batch_size=2)


@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_the_order_alone_picks_the_crops_of_the_batches(dataset, crops, shard):
    whole = resident_arrays(dataset, crops, target="stain")
    recipe = {"batch_size": 4, "seed": 4, "shard": shard}
    batches = training_batches(dataset, crops, target="stain", **recipe)
    order = training_order(len(crops), **recipe)
    next(batches)
    order.set_state(batches.get_state())
    picked = [next(order)["index"] for _ in range(9)]
    order.close()
    found = [{key: array[index] for key, array in whole.items()} for index in picked]
    assert same(take(batches, 9), found)
