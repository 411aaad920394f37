"""Batches split over the devices; who holds the crops, which makes no difference to the numbers."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from isl_jax.training.devices import (
    batch_placer,
    check_batch_size,
    check_devices,
    data_mesh,
    fits_on_device,
    in_any_process,
    loading_threads,
    shard_whole_batch,
)


@pytest.fixture
def crops():
    rng = np.random.default_rng(0)
    return {name: rng.random((10, 4, 4, n)).astype(np.float32) for name, n in (("a", 3), ("b", 1))}


def test_both_placements_give_the_same_arrays_split_alike(crops):
    order, mesh = np.random.default_rng(1).integers(0, 10, 8).astype(np.int32), data_mesh()
    sent = batch_placer(mesh)({name: array[order] for name, array in crops.items()})
    gathered = batch_placer(mesh, crops)({"index": order})
    assert sent["a"].shape == (8, 4, 4, 3)
    for name in crops:
        np.testing.assert_array_equal(sent[name], gathered[name])
        assert sent[name].sharding.is_equivalent_to(gathered[name].sharding, sent[name].ndim)
        assert sent[name].sharding.shard_shape(sent[name].shape)[0] == 2


def off_alignment(array):
    """A copy that starts 4 bytes behind a multiple of 16.

    On CPU jax uses arrays that start at a multiple of 64 as they are, without a copy.
    """
    copy = np.empty(array.nbytes + 4, np.uint8)[4:].view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


def test_pixels_stay_on_the_device(crops):
    crops = {name: off_alignment(array) for name, array in crops.items()}
    place, index = batch_placer(data_mesh(), crops), {"index": np.arange(4, dtype=np.int32)}
    place(index)
    for array in crops.values():
        array[:] = np.nan  # the host's copy is of no use any more
    with jax.transfer_guard_device_to_host("disallow"):
        gathered = place(index)
    assert np.isfinite(gathered["a"]).all()


@pytest.mark.parametrize(
    ("num_bytes", "options", "expected"),
    [
        (1 << 40, {"placement": "device"}, True),
        (1, {"placement": "host"}, False),
        (1 << 20, {}, True),
        (1 << 40, {}, False),
        (1000, {"limit_bytes": 1000}, True),
        (1001, {"limit_bytes": 1000}, False),
    ],
)
def test_small_sets_go_to_the_device(num_bytes, options, expected):
    assert fits_on_device(num_bytes, **options) is expected


def test_an_unknown_placement_is_refused():
    with pytest.raises(ValueError, match="disk"):
        fits_on_device(1, placement="disk")


def test_a_batch_that_does_not_divide_is_filled_with_what_weighs_nothing():
    weight = np.ones((6, 4, 4, 1), np.float32)
    placed = shard_whole_batch({"image": 7 * weight, "weight": weight}, data_mesh())
    assert placed["image"].shape == (8, 4, 4, 1)
    np.testing.assert_array_equal(placed["image"][:6], 7 * weight)
    assert not np.asarray(placed["weight"][6:]).any()


@pytest.mark.parametrize(("size", "told"), [(10, "choose 8, 12 or"), (3, "choose 4 or")])
def test_a_batch_size_that_does_not_divide_is_refused_and_others_are_offered(size, told):
    with pytest.raises(ValueError, match=rf"batch_size={size}.*4 devices: {told}.*multiple of 4"):
        check_batch_size(size, data_mesh())


@pytest.mark.parametrize(
    ("asked", "backend", "devices", "cores", "expected"),
    [
        (3, "gpu", 4, 64, 3),
        (0, "gpu", 1, 64, 0),
        (-1, "cpu", 4, 64, 0),
        (-1, "gpu", 1, 64, 4),
        (-1, "gpu", 4, 64, 8),
        (-1, "tpu", 4, 4, 3),
        (-1, "gpu", 1, 1, 2),
    ],
)
def test_threads_load_where_an_accelerator_steps(
    monkeypatch, asked, backend, devices, cores, expected
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "local_device_count", lambda: devices)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cores), raising=False)
    assert loading_threads(asked) == expected


def test_fewer_threads_than_none_are_refused():
    with pytest.raises(ValueError, match=r"data.num_workers=-2: choose 0 or more, or -1"):
        loading_threads(-2)


def as_one_of_two(monkeypatch, other):
    """This process beside another that says `other`; returns how often they have met."""
    meetings = []

    def gather(mine):
        meetings.append(mine)
        return np.stack([mine, np.broadcast_to(other, mine.shape)])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", gather)
    return meetings


@pytest.mark.parametrize(("other_is_short", "expected"), [(True, False), (False, True)])
def test_processes_agree_on_who_holds_the_crops(monkeypatch, other_is_short, expected):
    as_one_of_two(monkeypatch, np.asarray([other_is_short]))
    assert fits_on_device(1000, limit_bytes=1000) is expected
    assert not fits_on_device(1001, limit_bytes=1000)


def test_processes_ask_each_other_once_for_several_flags(monkeypatch):
    meetings = as_one_of_two(monkeypatch, np.asarray([False, True]))
    assert in_any_process(False, False) == (False, True)
    assert in_any_process(True, False) == (True, True)
    assert len(meetings) == 2


def test_processes_with_different_numbers_of_devices_are_refused():
    def mesh(*owners):
        devices = [SimpleNamespace(process_index=owner) for owner in owners]
        return SimpleNamespace(devices=np.array(devices, object))

    check_devices(mesh(0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"process 0 2, process 1 1.*give each as many"):
        check_devices(mesh(0, 0, 1))
