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

from isl_jax.data.store import FIELDS_DIR
from isl_jax.launch.benchmarks import _crop_loaders as loaders
from isl_jax.launch.benchmarks._crop_loaders import BATCH, CROP, NUM_FIELDS, SIZE

NUM_BATCHES, ROUNDS = 40, 3

# What a contender does: prepared fields → endless batches.
Batches = Callable[[Path], Iterator]

_OURS: dict[str, Batches] = {
    "ours, 2 threads": loaders.ours,
    "to device, standardised by the loader": loaders.standardised_by_loader,
    "to device, standardised there": loaders.standardised_on_device,
}
_PEERS: dict[str, Batches] = {
    "reference: float64 crops in RAM, torch": loaders.float64_crops,
    "torch, 2 workers, memory-mapped": loaders.torch_workers,
    "torch, 2 workers, our load_crop": loaders.torch_our_crops,
}


def main(*, peer: bool) -> dict:
    """Print start-up, crops a second and memory of each contender; returns them as figures.

    Memory is anonymous and shared memory beyond the imported program, worker processes included;
    mapped files, which the system takes back when it needs to, are not counted.
    """
    if peer and find_spec("torch") is None:
        raise ValueError("--peer needs torch: pip install 'isl-jax[bench]'")
    contenders = _OURS | (_PEERS if peer else {})
    figures: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        loaders.write_store(root)
        rounds: dict[str, list[dict]] = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name, batches in contenders.items():
                rounds[name].append(_in_own_process(batches, root))
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
        loaders.write_sparse_store(root)
        row = _in_own_process(loaders.fresh_of_20_gib, root)
        figures["20 GiB store"] = row
        print(
            f"20 GiB store ({loaders.NUM_SPARSE_FIELDS} fields), fresh crops, 2 threads: "
            f"{row['memory_mib']:.0f} MiB, {row['crops_per_second']:.0f} crops/s"
        )
    return figures


def _in_own_process(batches: Batches, root: Path) -> dict:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, batches, root).result()


def _measure(batches: Batches, root: Path) -> dict:
    # Imports are the program, not the loader: outside time and memory.
    if batches in _PEERS.values():
        importlib.import_module("torch.utils.data")
    if batches in (loaders.standardised_by_loader, loaders.standardised_on_device):
        importlib.import_module("jax").devices()
    for path in sorted(root.glob(f"{FIELDS_DIR}/*/*.npy"))[: 2 * NUM_FIELDS]:
        np.load(path, mmap_mode="r").max()  # into the page cache
    before, start = _memory_mib(), time.perf_counter()
    iterator = batches(root)
    next(iterator)
    startup = time.perf_counter() - start
    for _ in range(10):
        next(iterator)
    peak, start = 0.0, time.perf_counter()
    for number in range(NUM_BATCHES):
        next(iterator)
        if number % 10 == 0:
            peak = max(peak, _memory_mib())
    seconds = time.perf_counter() - start
    iterator.close()  # type: ignore[attr-defined]
    return {
        "startup_s": startup,
        "crops_per_second": NUM_BATCHES * BATCH / seconds,
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
