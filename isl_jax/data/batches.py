"""Crops to batches with grain: the same for any number of workers, resumable at any step."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import grain
import numpy as np

from isl_jax.data.crops import Crop, FreshCrops
from isl_jax.data.description import REMEDY
from isl_jax.data.store import LABELS, Dataset
from isl_jax.data.targets import distance_map, semantic_mask
from isl_jax.task import Task

# image, target and weight by name: of one crop [S, S, …], of a batch [B, S, S, …].
Batch = dict[str, np.ndarray]
Crops = Sequence[Crop] | FreshCrops


@dataclass(frozen=True)
class CropSource:
    """Where the pixels of crops come from, and what is to be learnt from them."""

    dataset: Dataset
    crops: Crops
    task: Task

    @property
    def crop_size(self) -> int:
        """Side of the crops in pixels."""
        return self.crops.plan.size if isinstance(self.crops, FreshCrops) else self.crops[0].size

    def empty(self, count: int) -> Batch:
        """Arrays for `count` crops, not filled."""
        # One large array a batch, filled in place: arrays of single crops would cost more in page
        # faults than in arithmetic.
        shapes = _shapes(self.dataset, self.crop_size, self.task)
        return {key: np.empty((count, *shape), np.float32) for key, shape in shapes.items()}

    def fill(self, sample: Batch, index: int, *, epoch: int = 0) -> None:
        """Write the pixels of crop `index` of an epoch into the arrays of `sample`."""
        crops = self.crops
        crop = crops.crop(epoch, index) if isinstance(crops, FreshCrops) else crops[index]
        load_crop(self.dataset, crop, self.task, out=sample)


def training_batches(
    source: CropSource,
    *,
    batch_size: int,
    seed: int,
    num_workers: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator:
    """Endless batches, float32: image [B, S, S, C], target [B, S, S, T], weight [B, S, S, 1].

    Every crop comes once an epoch, in an order of its own each epoch; batches run across epoch
    boundaries. What a batch holds depends on (seed, position) only, so any `num_workers` (loading
    threads; numpy releases the interpreter lock) gives the same bytes. `shard` (index, count) gives
    this process its part of the global batch of `batch_size`.
    The iterator's get_state() and set_state() resume exactly, whatever the number of workers.

    See `load_crop` for the targets. Raises ValueError if there are no crops or a batch cannot be
    dealt out evenly.
    """
    _, count = shard
    if not len(source.crops):
        raise ValueError(
            f"{source.dataset.root}: no crop to train on; choose a smaller crop or more fields"
        )
    if batch_size < 1 or batch_size % count:
        raise ValueError(f"batch size {batch_size} does not divide over {count} processes")
    order = _order(len(source.crops), batch_size, seed, shard)
    return iter(order.map(partial(_load_batch, source)).to_iter_dataset(_read_options(num_workers)))


def training_order(
    num_crops: int, *, batch_size: int, seed: int, shard: tuple[int, int] = (0, 1)
) -> grain.DatasetIterator:
    """Which crops the batches of `training_batches` hold: {"index": [B]}, without pixels.

    For a device that holds the crops themselves (`resident_arrays`). States of the two iterators
    are interchangeable.
    """
    order = _order(num_crops, batch_size, seed, shard)
    return iter(order.map(_indices).to_iter_dataset(_read_options(0)))


def _order(num_crops: int, batch_size: int, seed: int, shard: tuple[int, int]) -> grain.MapDataset:
    """Batches of (epochs [B], indices [B])."""
    index, count = shard
    order = grain.MapDataset.range(num_crops).seed(seed).shuffle().repeat()
    order = order.map_with_index(partial(_with_epoch, num_crops))
    return order[index::count].batch(batch_size // count, drop_remainder=True)


def _with_epoch(length: int, position: int, index: int) -> tuple[int, int]:
    return position // length, index


def _indices(places: tuple) -> Batch:
    return {"index": np.ravel(places[1]).astype(np.int32)}


def evaluation_batches(
    source: CropSource, *, batch_size: int, num_workers: int = 0
) -> grain.DatasetIterator:
    """Every crop once, in order; batches as in `training_batches`, all of one size.

    The last batch is filled up with zeros of weight 0.
    """
    if not len(source.crops):
        raise ValueError(
            f"{source.dataset.root}: no crop to evaluate; choose a smaller crop or more fields"
        )
    num_batches = -(-len(source.crops) // batch_size)
    batches = grain.MapDataset.range(num_batches).map(partial(_load_padded, source, batch_size))
    return iter(batches.to_iter_dataset(_read_options(num_workers)))


def resident_arrays(source: CropSource) -> Batch:
    """All crops at once, for a device that holds the whole set: the arrays of one batch of them."""
    count = len(source.crops)
    return _load_batch(source, (np.zeros(count, int), np.arange(count)))


def resident_bytes(source: CropSource) -> int:
    """Memory that `resident_arrays` of these crops takes, in bytes."""
    shapes = _shapes(source.dataset, source.crop_size, source.task)
    values = sum(int(np.prod(shape)) for shape in shapes.values())
    return len(source.crops) * values * np.dtype(np.float32).itemsize


def _read_options(num_workers: int) -> grain.ReadOptions:
    # grain's default buffer of 500 elements would be 500 batches; one more than are being loaded
    # is as fast as any number (docs/performance.md).
    ahead = num_workers + 1 if num_workers else 0
    return grain.ReadOptions(num_threads=num_workers, prefetch_buffer_size=ahead)


def _load_batch(source: CropSource, places: tuple) -> Batch:
    epochs, indices = (np.ravel(place).tolist() for place in places)
    batch = source.empty(len(indices))
    for row, (epoch, index) in enumerate(zip(epochs, indices, strict=True)):
        source.fill({key: array[row] for key, array in batch.items()}, index, epoch=epoch)
    return batch


def _load_padded(source: CropSource, batch_size: int, number: int) -> Batch:
    batch = source.empty(batch_size)
    for row in range(batch_size):
        index = number * batch_size + row
        sample = {key: array[row] for key, array in batch.items()}
        if index < len(source.crops):
            source.fill(sample, index)
        else:
            for array in sample.values():
                array.fill(0)
    return batch


# Pixels of one crop -------------------------------------------------------------------------------


def load_crop(dataset: Dataset, crop: Crop, task: Task, *, out: Batch | None = None) -> Batch:
    """Pixels of one crop, float32: image [S, S, C], target [S, S, T], weight [S, S, 1].

    image: normalised by the levels of the whole field. target: the task's maps in order, a stain
    on its scale (`stain.StainScale`), a distance map / distance_unit, a semantic map 0 or 1.
    weight: 1, and 0 where the crop reaches past the field (filled by reflection) and, of
    segmentation, where nobody has annotated. The arrays of `out`, contiguous, are written to if
    given.
    """
    field = dataset.field(crop.field)
    shapes = _shapes(dataset, crop.size, task)
    sample = out or {key: np.empty(shape, np.float32) for key, shape in shapes.items()}
    height, width = min(crop.size, field.height - crop.top), min(crop.size, field.width - crop.left)
    window = (slice(crop.top, crop.top + height), slice(crop.left, crop.left + width))
    inside = sample
    if (height, width) != (crop.size, crop.size):
        inside = {k: np.empty((height, width, s[2]), np.float32) for k, s in shapes.items()}
    # Image and weight, then the maps that the task learns.
    pixels = dataset.inputs(crop.field)[window]
    levels = dataset.levels(crop.field)
    levels.apply(pixels, top=crop.top, left=crop.left, out=inside["image"])
    inside["weight"].fill(1)
    if task.is_stain:
        stain = dataset.stain_image(crop.field)[window]
        dataset.field_stain_scale(crop.field).scale(stain, out=inside["target"][..., 0])
    else:
        if (ignored := dataset.ignored(crop.field)) is not None:
            inside["weight"][ignored[window]] = 0
        inside["target"][..., -1] = semantic_mask(_labels(dataset, crop.field, window))
    if task.has_distance:
        distance = _crop_distance(dataset, crop.field, window, task)
        np.divide(distance, np.float32(task.distance_unit), out=inside["target"][..., 0])
    # A crop that reaches past its field is filled up there.
    if inside is not sample:
        pad = [(0, crop.size - height), (0, crop.size - width), (0, 0)]
        sample["image"][:] = np.pad(inside["image"], pad, mode="reflect")
        sample["target"][:] = np.pad(inside["target"], pad, mode="reflect")
        sample["weight"][:] = np.pad(inside["weight"], pad)
    return sample


def _shapes(dataset: Dataset, size: int, task: Task) -> dict[str, tuple[int, int, int]]:
    planes = {"image": len(dataset.channels), "target": task.num_outputs, "weight": 1}
    return {key: (size, size, count) for key, count in planes.items()}


def _labels(dataset: Dataset, name: str, window: tuple[slice, slice]) -> np.ndarray:
    labels = np.asarray(dataset.labels(name)[window])
    if labels.min() < 0:
        raise ValueError(f"{dataset.path(name, LABELS)}: damaged (ids below 0); {REMEDY}")
    return labels


def _crop_distance(
    dataset: Dataset, name: str, window: tuple[slice, slice], task: Task
) -> np.ndarray:
    """Distance map of the whole field, computed only where the crop's cells reach: exact."""
    labels = dataset.labels(name)
    ids, boxes = dataset.label_boxes(name)
    inside = boxes[np.isin(ids, np.unique(labels[window]))]
    (top, bottom), (left, right) = ((side.start, side.stop) for side in window)
    if len(inside):
        # One pixel beyond each cell, so that its whole boundary is in view.
        top = max(0, min(top, inside[:, 0].min() - 1))
        bottom = min(labels.shape[0], max(bottom, inside[:, 1].max() + 1))
        left = max(0, min(left, inside[:, 2].min() - 1))
        right = min(labels.shape[1], max(right, inside[:, 3].max() + 1))
    whole = _labels(dataset, name, (slice(top, bottom), slice(left, right)))
    distance = distance_map(whole, task.distance_scale, task.distance_peaks)
    rows, columns = window
    return distance[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
