"""How fast crops of large fields reach the training loop, how soon, and in how much memory.

Crops 512×512×(3 + 1) of uint16 fields 2160×2160, batches of 10, page cache warm. Every contender
runs in a process of its own, all of them in turn, several rounds.
"""

import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from isl_jax.data.crops import FreshCrops, fixed_crops
from isl_jax.data.normalisation import StainScale
from isl_jax.data.pipeline import training_batches
from isl_jax.data.samples import load_crop
from isl_jax.data.store import FIELDS_DIR, INPUTS, STAIN, Dataset, Field

SIZE, CROP, BATCH, PER_IMAGE = 2160, 512, 10, 5
NUM_FIELDS, NUM_BATCHES, ROUNDS = 16, 40, 5
# 575 fields of 2160² × 4 planes × 2 bytes: 20 GiB, as sparse files.
NUM_SPARSE_FIELDS = 575

# What a contender does: prepared fields → endless batches.
Batches = Callable[[Path], Iterator]


def main(*, peer: bool) -> dict:
    """Print start-up, crops a second and memory of each contender; returns them as figures.

    Memory is anonymous and shared memory beyond the imported program, worker processes included;
    mapped files, which the system takes back when it needs to, are not counted.
    """
    contenders: dict[str, Batches] = {"ours, 2 threads": _ours, "ours, crops in memory": _resident}
    if peer:
        contenders |= {
            "reference: float64 crops in RAM, torch": _float64_crops,
            "torch, 2 workers, memory-mapped": _torch_workers,
            "torch, 2 workers, our load_crop": _torch_our_crops,
        }
    figures: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_store(root, NUM_FIELDS)
        rounds: dict[str, list[dict]] = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name, batches in contenders.items():
                rounds[name].append(_in_own_process(batches, root, NUM_BATCHES))
        print(f"{NUM_FIELDS} fields {SIZE}², crops {CROP}², batch {BATCH}; median of {ROUNDS}")
        print(f"{'':<40}{'start-up s':>11}{'crops/s':>9}{'min':>7}{'max':>7}{'MiB':>7}")
        for name, results in rounds.items():
            speeds = [result["crops_per_second"] for result in results]
            row = {key: statistics.median(r[key] for r in results) for key in results[0]}
            figures[name] = row | {"rounds": results}
            print(
                f"{name:<40}{row['startup_s']:>11.2f}{row['crops_per_second']:>9.0f}"
                f"{min(speeds):>7.0f}{max(speeds):>7.0f}{row['memory_mib']:>7.0f}"
            )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_sparse_store(root)
        row = _in_own_process(_fresh_of_20_gib, root, NUM_BATCHES)
        figures["20 GiB store"] = row
        print(
            f"20 GiB store ({NUM_SPARSE_FIELDS} fields), fresh crops, 2 threads: "
            f"{row['memory_mib']:.0f} MiB, {row['crops_per_second']:.0f} crops/s"
        )
    return figures


# Ours ---------------------------------------------------------------------------------------------


def _ours(root: Path) -> Iterator:
    dataset = _dataset(root, NUM_FIELDS)
    crops, _ = fixed_crops(
        dataset, dataset.fields, rule="stain_signal", size=CROP, per_image=PER_IMAGE, seed=0
    )
    return training_batches(
        dataset, crops, target="stain", batch_size=BATCH, seed=0, num_workers=2, cache_bytes=0
    )


def _resident(root: Path) -> Iterator:
    dataset = _dataset(root, NUM_FIELDS)
    crops, _ = fixed_crops(
        dataset, dataset.fields, rule="stain_signal", size=CROP, per_image=PER_IMAGE, seed=0
    )
    return training_batches(
        dataset, crops, target="stain", batch_size=BATCH, seed=0, num_workers=2, cache_bytes=1 << 40
    )


def _fresh_of_20_gib(root: Path) -> Iterator:
    dataset = _dataset(root, NUM_SPARSE_FIELDS)
    crops = FreshCrops(dataset, dataset.fields, rule="any", size=CROP, per_image=PER_IMAGE, seed=0)
    return training_batches(dataset, crops, target="stain", batch_size=BATCH, seed=0, num_workers=2)


# Peers --------------------------------------------------------------------------------------------


def _float64_crops(root: Path) -> Iterator:
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
            crops, _ = fixed_crops(
                self.dataset,
                self.dataset.fields,
                rule="any",
                size=CROP,
                per_image=PER_IMAGE,
                seed=0,
            )
            self.crops = crops
        sample = load_crop(self.dataset, self.crops[index], target="stain")
        return sample["image"], sample["target"], sample["weight"]


def _torch_workers(root: Path) -> Iterator:
    return _endless(_with_two_workers(_MemoryMapped(root)))


def _torch_our_crops(root: Path) -> Iterator:
    return _endless(_with_two_workers(_OurCrops(root)))


def _with_two_workers(dataset):
    from torch.utils.data import DataLoader

    return DataLoader(
        dataset, batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True
    )


def _endless(loader) -> Iterator:
    while True:
        yield from loader


# Measuring ----------------------------------------------------------------------------------------


def _in_own_process(batches: Batches, root: Path, num_batches: int) -> dict:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, batches, root, num_batches).result()


def _measure(batches: Batches, root: Path, num_batches: int) -> dict:
    if batches in (_float64_crops, _torch_workers, _torch_our_crops):
        if find_spec("torch") is None:
            raise ValueError("--peer needs torch: pip install 'isl-jax[bench]'")
        importlib.import_module("torch.utils.data")
    for path in sorted(root.glob(f"{FIELDS_DIR}/*/*.npy"))[: 2 * NUM_FIELDS]:
        np.load(path, mmap_mode="r").max()  # into the page cache
    before, start = _memory_mib(), time.perf_counter()
    iterator = batches(root)
    next(iterator)
    startup = time.perf_counter() - start
    for _ in range(10):
        next(iterator)
    peak, start = 0.0, time.perf_counter()
    for number in range(num_batches):
        next(iterator)
        if number % 10 == 0:
            peak = max(peak, _memory_mib())
    seconds = time.perf_counter() - start
    return {
        "startup_s": startup,
        "crops_per_second": num_batches * BATCH / seconds,
        "memory_mib": peak - before,
    }


def _memory_mib() -> float:
    """Anonymous and shared memory of this process and its children."""
    me = os.getpid()
    children = Path(f"/proc/{me}/task/{me}/children").read_text().split()
    total = 0
    for process in [str(me), *children]:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                total += int(line.split()[1])
    return total / 1024


def _name(number: int) -> str:
    return f"field{number:03d}"


def _write_store(root: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        folder = root / FIELDS_DIR / _name(number)
        folder.mkdir(parents=True)
        stain = rng.integers(0, 3000, (SIZE, SIZE)).astype(np.uint16)
        rows, columns = rng.integers(0, SIZE - 60, (2, 200))
        for row, column in zip(rows, columns, strict=True):
            stain[row : row + 60, column : column + 60] += 30000
        np.save(folder / INPUTS, rng.integers(0, 60000, (SIZE, SIZE, 3)).astype(np.uint16))
        np.save(folder / STAIN, stain)


def _write_sparse_store(root: Path) -> None:
    for number in range(NUM_SPARSE_FIELDS):
        folder = root / FIELDS_DIR / _name(number)
        folder.mkdir(parents=True)
        for name, shape in ((INPUTS, (SIZE, SIZE, 3)), (STAIN, (SIZE, SIZE))):
            np.lib.format.open_memmap(folder / name, mode="w+", dtype=np.uint16, shape=shape)


def _dataset(root: Path, count: int) -> Dataset:
    fields = [
        Field(_name(k), _name(k), "train", SIZE, SIZE, True, False, (3e4,) * 3, (1e4,) * 3)
        for k in range(count)
    ]
    return Dataset(root, "nucleus", ("a", "b", "c"), "stain", StainScale(0, 6e4), tuple(fields))
