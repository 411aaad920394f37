"""What the loader suite compares: prepared fields to endless batches of crops, in several ways."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from isl_jax.data.batches import CropSource, load_crop, training_batches
from isl_jax.data.crops import Crop, CropPlan, FreshCrops, fixed_crops
from isl_jax.data.stain import StainScale
from isl_jax.data.store import FIELDS_DIR, INPUTS, STAIN, Dataset, Field
from isl_jax.task import Kind, Task

SIZE, CROP, BATCH, PER_IMAGE = 2160, 512, 10, 5
PLAN, TASK = CropPlan(CROP, PER_IMAGE), Task(Kind.STAIN)
NUM_FIELDS = 64
# 575 fields of 2160² × 4 planes × 2 bytes: 20 GiB, as sparse files.
NUM_SPARSE_FIELDS = 575

# Ours ---------------------------------------------------------------------------------------------


def ours(root: Path) -> Iterator:
    """Two threads on memory-mapped fields: what training does with many crops."""
    source = CropSource(*_fixed(root), TASK)
    return training_batches(source, batch_size=BATCH, seed=0, num_workers=2)


def fresh_of_20_gib(root: Path) -> Iterator:
    """New crops each epoch, of a data set larger than most memories."""
    dataset = _dataset(root, NUM_SPARSE_FIELDS)
    crops = FreshCrops(dataset, dataset.fields, "any", PLAN)
    source = CropSource(dataset, crops, TASK)
    return training_batches(source, batch_size=BATCH, seed=0, num_workers=2)


# Where to standardise: both end with arrays that a training step can use --------------------------


def standardised_by_loader(root: Path) -> Iterator:
    """Our batches, float32, moved to the device."""
    import jax

    for batch in ours(root):
        yield jax.block_until_ready(jax.device_put(batch))


def standardised_on_device(root: Path) -> Iterator:
    """Raw uint16 crops moved to the device, which makes of them what our batches are."""
    import grain
    import jax
    import jax.numpy as jnp

    dataset, crops = _fixed(root)
    mean = np.array([field.input_mean for field in dataset.fields], np.float32)
    std = np.array([field.input_std for field in dataset.fields], np.float32)
    number = {field.name: k for k, field in enumerate(dataset.fields)}

    def load(indices: np.ndarray) -> dict[str, np.ndarray]:
        chosen = [crops[int(index)] for index in indices]
        image = np.empty((BATCH, CROP, CROP, 3), np.uint16)
        stain = np.empty((BATCH, CROP, CROP, 1), np.uint16)
        for row, crop in enumerate(chosen):
            window = np.s_[crop.top : crop.top + CROP, crop.left : crop.left + CROP]
            image[row] = dataset.inputs(crop.field)[window]
            stain[row, ..., 0] = dataset.stain_image(crop.field)[window]
        fields = [number[crop.field] for crop in chosen]
        at = np.s_[:, None, None]
        return {"image": image, "stain": stain, "mean": mean[fields][at], "std": std[fields][at]}

    @jax.jit
    def standardise(raw: dict[str, jax.Array]) -> dict[str, jax.Array]:
        scale = dataset.stain_scale
        return {
            "image": (raw["image"].astype(jnp.float32) - raw["mean"]) / raw["std"],
            "target": (raw["stain"].astype(jnp.float32) - scale.low) / (scale.high - scale.low),
            "weight": jnp.ones(raw["stain"].shape, jnp.float32),
        }

    order = grain.MapDataset.range(len(crops)).seed(0).shuffle().repeat().batch(BATCH)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=3)
    for raw in order.map(load).to_iter_dataset(options):
        yield jax.block_until_ready(standardise(raw))


# Peers --------------------------------------------------------------------------------------------


def float64_crops(root: Path) -> Iterator:
    """All crops standardised in float64 and held in memory, one process, as the paper's code."""
    from torch.utils.data import DataLoader

    dataset, rng, samples = _dataset(root, NUM_FIELDS), np.random.default_rng(0), []
    for field in dataset.fields:
        image = np.array(dataset.inputs(field.name), np.float64)
        image = (image - image.mean((0, 1))) / image.std((0, 1))
        stain = np.array(dataset.stain_image(field.name), np.float64) / 65535
        for _ in range(PER_IMAGE):
            top, left = rng.integers(0, SIZE - CROP, 2)
            window = np.s_[top : top + CROP, left : left + CROP]
            samples.append((image[window].copy(), stain[window].copy()))
    return _endless(DataLoader(samples, batch_size=BATCH, shuffle=True))  # type: ignore


class _MemoryMapped:
    """A torch data set of random crops of memory-mapped fields."""

    def __init__(self, root: Path):
        self.root, self.opened = root, {}

    def __len__(self) -> int:
        return NUM_FIELDS * PER_IMAGE

    def __getitem__(self, index: int):
        name, rng = _name(index // PER_IMAGE), np.random.default_rng(index)
        if name not in self.opened:
            folder = self.root / FIELDS_DIR / name
            self.opened[name] = [np.load(folder / f, mmap_mode="r") for f in (INPUTS, STAIN)]
        inputs, stain = self.opened[name]
        top, left = rng.integers(0, SIZE - CROP, 2)
        window = np.s_[top : top + CROP, left : left + CROP]
        image = (inputs[window].astype(np.float32) - np.float32(3e4)) / np.float32(1e4)
        return image, stain[window].astype(np.float32) / np.float32(6e4)


class _OurCrops(_MemoryMapped):
    """The same with this project's own crop code, which leaves the two pipelines to compare."""

    def __init__(self, root: Path):
        super().__init__(root)
        self.dataset = None

    def __getitem__(self, index: int):
        if self.dataset is None:
            self.dataset = _dataset(self.root, NUM_FIELDS)
            self.crops, _ = fixed_crops(self.dataset, self.dataset.fields, "any", PLAN)
        sample = load_crop(self.dataset, self.crops[index], TASK)
        return sample["image"], sample["target"], sample["weight"]


def torch_workers(root: Path) -> Iterator:
    """A torch DataLoader with two worker processes on memory-mapped arrays."""
    return _endless(_with_two_workers(_MemoryMapped(root)))


def torch_our_crops(root: Path) -> Iterator:
    """The same around our function that loads one crop."""
    return _endless(_with_two_workers(_OurCrops(root)))


def _with_two_workers(dataset):
    from torch.utils.data import DataLoader

    return DataLoader(
        dataset, batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True
    )


def _endless(loader) -> Iterator:
    while True:
        yield from loader


# The data -----------------------------------------------------------------------------------------


def write_store(root: Path) -> None:
    """Fields of noise with bright squares for nuclei."""
    rng = np.random.default_rng(0)
    for number in range(NUM_FIELDS):
        folder = root / FIELDS_DIR / _name(number)
        folder.mkdir(parents=True)
        stain = rng.integers(0, 3000, (SIZE, SIZE), np.uint16)
        rows, columns = rng.integers(0, SIZE - 60, (2, -(-200 * SIZE**2 // 2160**2)))
        for row, column in zip(rows, columns, strict=True):
            stain[row : row + 60, column : column + 60] = 30000
        np.save(folder / INPUTS, rng.integers(0, 60000, (SIZE, SIZE, 3), np.uint16))
        np.save(folder / STAIN, stain)


def write_sparse_store(root: Path) -> None:
    """Fields that take no room on disk."""
    for number in range(NUM_SPARSE_FIELDS):
        folder = root / FIELDS_DIR / _name(number)
        folder.mkdir(parents=True)
        for name, shape in ((INPUTS, (SIZE, SIZE, 3)), (STAIN, (SIZE, SIZE))):
            np.lib.format.open_memmap(folder / name, mode="w+", dtype=np.uint16, shape=shape)


def _fixed(root: Path) -> tuple[Dataset, tuple[Crop, ...]]:
    dataset = _dataset(root, NUM_FIELDS)
    crops, _ = fixed_crops(dataset, dataset.fields, "stain_signal", PLAN)
    return dataset, crops


def _name(number: int) -> str:
    return f"field{number:03d}"


def _dataset(root: Path, count: int) -> Dataset:
    fields = [
        Field(_name(k), _name(k), "train", SIZE, SIZE, True, False, (3e4,) * 3, (1e4,) * 3)
        for k in range(count)
    ]
    return Dataset(root, "nucleus", ("a", "b", "c"), "stain", StainScale(0, 6e4), tuple(fields))
