"""Crops to batches with grain: the same for any number of workers, resumable at any step."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import grain
import numpy as np

from isl_jax.data.crops import Crop, FreshCrops
from isl_jax.data.samples import NUM_TARGETS, Target, load_crop
from isl_jax.data.store import Dataset
from isl_jax.data.targets import Scale

Batch = dict[str, np.ndarray]
Crops = Sequence[Crop] | FreshCrops

# Crop sets up to this size are kept in memory, ready for training.
CACHE_BYTES = 256 << 20


def training_batches(
    dataset: Dataset,
    crops: Crops,
    *,
    target: Target,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
    repeat: bool = True,
    flips: bool = False,
    num_workers: int = 0,
    distance_scale: Scale = "normalised",
    distance_unit: float = 255.0,
    shard: tuple[int, int] = (0, 1),
    cache_bytes: int = CACHE_BYTES,
) -> grain.DatasetIterator:
    """Batches of crops, float32: image [B, S, S, C], target [B, S, S, T], weight [B, S, S, 1].

    Every crop comes once an epoch, in an order of its own each epoch; batches run across epoch
    boundaries. What a batch holds depends on (seed, position) only, so any `num_workers` (loading
    threads; numpy releases the interpreter lock) gives the same bytes. `flips` turns and mirrors
    each crop at random (8 orientations). `shard` (index, count) gives this process its part of the
    global batch of `batch_size`. Without `repeat` there is one epoch, its last part batch left out.
    The iterator's get_state() and set_state() resume exactly, whatever the number of workers.

    See `samples.load_crop` for the targets. Raises ValueError if there are no crops or a batch
    cannot be dealt out evenly.
    """
    index, count = shard
    if not len(crops):
        raise ValueError(
            f"{dataset.root}: no crop to train on; choose a smaller crop or more fields"
        )
    if batch_size < 1 or batch_size % count:
        raise ValueError(f"batch size {batch_size} does not divide over {count} processes")
    if not repeat and batch_size > len(crops):
        raise ValueError(f"one epoch of {len(crops)} crops holds no batch of {batch_size}")
    fetch = _fetcher(dataset, crops, target, distance_scale, distance_unit, cache_bytes)
    order = grain.MapDataset.range(len(crops)).seed(seed)
    order = order.shuffle() if shuffle else order
    order = order.repeat() if repeat else order
    order = order.map_with_index(partial(_with_epoch, len(crops)))
    order = order[index::count].batch(batch_size // count, drop_remainder=True)
    batches = order.map(partial(_load_batch, fetch, seed if flips else None))
    return iter(batches.to_iter_dataset(_read_options(num_workers)))


def evaluation_batches(
    dataset: Dataset,
    crops: Sequence[Crop],
    *,
    target: Target,
    batch_size: int,
    num_workers: int = 0,
    distance_scale: Scale = "normalised",
    distance_unit: float = 255.0,
) -> grain.DatasetIterator:
    """Every crop once, in order; batches as in `training_batches`, all of one size.

    The last batch is filled up with zeros of weight 0.
    """
    if not len(crops):
        raise ValueError(
            f"{dataset.root}: no crop to evaluate; choose a smaller crop or more fields"
        )
    fetch = _fetcher(dataset, crops, target, distance_scale, distance_unit, 0)
    num_batches = -(-len(crops) // batch_size)
    load = partial(_load_padded, fetch, len(crops), batch_size)
    batches = grain.MapDataset.range(num_batches).map(load)
    return iter(batches.to_iter_dataset(_read_options(num_workers)))


def resident_arrays(
    dataset: Dataset,
    crops: Sequence[Crop],
    *,
    target: Target,
    distance_scale: Scale = "normalised",
    distance_unit: float = 255.0,
) -> Batch:
    """All crops at once, for a device that holds the whole set: the arrays of one batch of them."""
    fetch = _fetcher(dataset, crops, target, distance_scale, distance_unit, 0)
    return _stack(fetch(0, index) for index in range(len(crops)))


def resident_bytes(dataset: Dataset, crops: Crops, *, target: Target) -> int:
    """Memory that `resident_arrays` of these crops takes, in bytes."""
    size = crops.size if isinstance(crops, FreshCrops) else crops[0].size
    planes = len(dataset.channels) + NUM_TARGETS[target] + 1
    return len(crops) * size * size * planes * np.dtype(np.float32).itemsize


def _read_options(num_workers: int) -> grain.ReadOptions:
    # grain's default buffer of 500 elements would be 500 batches.
    return grain.ReadOptions(num_threads=num_workers, prefetch_buffer_size=2 * num_workers)


def _with_epoch(length: int, position: int, index: int) -> tuple[int, int]:
    return position // length, index


def _fetcher(
    dataset: Dataset, crops: Crops, target: Target, scale: Scale, unit: float, cache_bytes: int
) -> Callable[[int, int], Batch]:
    """(epoch, index) → the pixels of that crop, from memory if all of them fit in `cache_bytes`."""
    load = partial(load_crop, dataset, target=target, distance_scale=scale, distance_unit=unit)
    if isinstance(crops, FreshCrops):
        return lambda epoch, index: load(crops.crop(epoch, index))
    if resident_bytes(dataset, crops, target=target) > cache_bytes:
        return lambda epoch, index: load(crops[index])
    samples = [load(crop) for crop in crops]
    return lambda epoch, index: samples[index]


def _load_batch(
    fetch: Callable[[int, int], Batch], seed: int | None, places: tuple[np.ndarray, np.ndarray]
) -> Batch:
    samples = []
    for epoch, index in zip(*map(np.ravel, places), strict=True):
        sample = fetch(int(epoch), int(index))
        if seed is not None:
            rng = np.random.default_rng((seed, int(epoch), int(index)))
            sample = _oriented(sample, int(rng.integers(8)))
        samples.append(sample)
    return _stack(samples)


def _oriented(sample: Batch, orientation: int) -> Batch:
    """One of the 8 symmetries of the square: quarter turns 0..3, mirrored for 4..7."""
    turned = {key: np.rot90(value, orientation % 4) for key, value in sample.items()}
    return {key: value[:, ::-1] if orientation >= 4 else value for key, value in turned.items()}


def _load_padded(
    fetch: Callable[[int, int], Batch], length: int, batch_size: int, number: int
) -> Batch:
    first = number * batch_size
    samples = [fetch(0, index) for index in range(first, min(first + batch_size, length))]
    empty = {key: np.zeros_like(value) for key, value in samples[0].items()}
    return _stack(itertools.chain(samples, itertools.repeat(empty, batch_size - len(samples))))


def _stack(samples: Iterable[Batch]) -> Batch:
    samples = list(samples)
    return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}
