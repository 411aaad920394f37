"""Crops to batches with grain: the same for any number of workers, resumable at any step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import grain
import numpy as np

from isl_jax.data.crops import Crop, FreshCrops
from isl_jax.data.samples import Target, load_crop, sample_shapes
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
    num_workers: int = 0,
    distance_scale: Scale = "normalised",
    distance_unit: float = 255.0,
    shard: tuple[int, int] = (0, 1),
    cache_bytes: int = CACHE_BYTES,
) -> grain.DatasetIterator:
    """Batches of crops, float32: image [B, S, S, C], target [B, S, S, T], weight [B, S, S, 1].

    Every crop comes once an epoch, in an order of its own each epoch; batches run across epoch
    boundaries. What a batch holds depends on (seed, position) only, so any `num_workers` (loading
    threads; numpy releases the interpreter lock) gives the same bytes. `shard` (index, count) gives
    this process its part of the global batch of `batch_size`. Without `repeat` there is one epoch,
    its last part batch left out.
    The iterator's get_state() and set_state() resume exactly, whatever the number of workers.

    See `samples.load_crop` for the targets. Raises ValueError if there are no crops or a batch
    cannot be dealt out evenly.
    """
    _, count = shard
    if not len(crops):
        raise ValueError(
            f"{dataset.root}: no crop to train on; choose a smaller crop or more fields"
        )
    if batch_size < 1 or batch_size % count:
        raise ValueError(f"batch size {batch_size} does not divide over {count} processes")
    if not repeat and batch_size > len(crops):
        raise ValueError(f"one epoch of {len(crops)} crops holds no batch of {batch_size}")
    source = _Source(dataset, crops, target, distance_scale, distance_unit)
    fixed = not isinstance(crops, FreshCrops)
    if fixed and resident_bytes(dataset, crops, target=target) <= cache_bytes:
        source = replace(source, resident=_load_all(source))
    order = _order(len(crops), batch_size, seed, shuffle=shuffle, repeat=repeat, shard=shard)
    batches = order.map(partial(_load_batch, source))
    return iter(batches.to_iter_dataset(_read_options(num_workers)))


def training_order(
    num_crops: int, *, batch_size: int, seed: int, shard: tuple[int, int] = (0, 1)
) -> grain.DatasetIterator:
    """Which crops the endless batches of `training_batches` hold: {"index": [B]}, without pixels.

    For a device that holds the crops themselves (`resident_arrays`). States of the two iterators
    are interchangeable.
    """
    order = _order(num_crops, batch_size, seed, shuffle=True, repeat=True, shard=shard)
    return iter(order.map(_indices).to_iter_dataset(_read_options(0)))


def _order(
    num_crops: int,
    batch_size: int,
    seed: int,
    *,
    shuffle: bool,
    repeat: bool,
    shard: tuple[int, int],
) -> grain.MapDataset:
    index, count = shard
    order = grain.MapDataset.range(num_crops).seed(seed)
    order = order.shuffle() if shuffle else order
    order = order.repeat() if repeat else order
    order = order.map_with_index(partial(_with_epoch, num_crops))
    return order[index::count].batch(batch_size // count, drop_remainder=True)


def _indices(places: tuple) -> Batch:
    return {"index": np.ravel(places[1]).astype(np.int32)}


def evaluation_batches(
    dataset: Dataset,
    crops: Crops,
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
    source = _Source(dataset, crops, target, distance_scale, distance_unit)
    num_batches = -(-len(crops) // batch_size)
    batches = grain.MapDataset.range(num_batches).map(partial(_load_padded, source, batch_size))
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
    source = _Source(dataset, crops, target, distance_scale, distance_unit)
    return _load_all(source)


def resident_bytes(dataset: Dataset, crops: Crops, *, target: Target) -> int:
    """Memory that `resident_arrays` of these crops takes, in bytes."""
    shapes = sample_shapes(dataset, _crop_size(crops), target)
    pixels = sum(int(np.prod(shape)) for shape in shapes.values())
    return len(crops) * pixels * np.dtype(np.float32).itemsize


def _read_options(num_workers: int) -> grain.ReadOptions:
    # grain's default buffer of 500 elements would be 500 batches; one more than are being loaded
    # is as fast as any number (docs/performance.md).
    ahead = num_workers + 1 if num_workers else 0
    return grain.ReadOptions(num_threads=num_workers, prefetch_buffer_size=ahead)


def _with_epoch(length: int, position: int, index: int) -> tuple[int, int]:
    return position // length, index


@dataclass(frozen=True)
class _Source:
    """Where the pixels of a crop come from: the prepared data set, or all crops in memory."""

    dataset: Dataset
    crops: Crops
    target: Target
    distance_scale: Scale
    distance_unit: float
    resident: Batch | None = None

    def new_batch(self, count: int) -> Batch:
        # One large array a batch, filled in place: arrays of single crops would cost more in page
        # faults than in arithmetic.
        shapes = sample_shapes(self.dataset, _crop_size(self.crops), self.target)
        return {key: np.empty((count, *shape), np.float32) for key, shape in shapes.items()}

    def fill(self, epoch: int, index: int, sample: Batch) -> None:
        if self.resident is not None:
            for key, array in sample.items():
                array[:] = self.resident[key][index]
            return
        crops = self.crops
        load_crop(
            self.dataset,
            crops.crop(epoch, index) if isinstance(crops, FreshCrops) else crops[index],
            target=self.target,
            distance_scale=self.distance_scale,
            distance_unit=self.distance_unit,
            out=sample,
        )


def _load_batch(source: _Source, places: tuple) -> Batch:
    epochs, indices = (np.ravel(place).tolist() for place in places)
    batch = source.new_batch(len(indices))
    for row, (epoch, index) in enumerate(zip(epochs, indices, strict=True)):
        source.fill(epoch, index, {key: array[row] for key, array in batch.items()})
    return batch


def _load_all(source: _Source) -> Batch:
    count = len(source.crops)
    return _load_batch(source, (np.zeros(count, int), np.arange(count)))


def _load_padded(source: _Source, batch_size: int, number: int) -> Batch:
    batch = source.new_batch(batch_size)
    for row in range(batch_size):
        index = number * batch_size + row
        sample = {key: array[row] for key, array in batch.items()}
        if index < len(source.crops):
            source.fill(0, index, sample)
        else:
            for array in sample.values():
                array.fill(0)
    return batch


def _crop_size(crops: Crops) -> int:
    return crops.size if isinstance(crops, FreshCrops) else crops[0].size
