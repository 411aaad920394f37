"""Data parallelism: one mesh axis, batches split along it, everything else replicated.

And where the crops live during a training: on the host, a batch at a time, or on the device.
"""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"
PLACEMENTS = ("auto", "host", "device")

# `auto` keeps this share of the free device memory for crops: activations need the rest.
_SHARE_OF_FREE_MEMORY = 0.25
# And this much where the device does not tell (CPU).
_BYTES_WITHOUT_STATISTICS = 256 << 20

HostBatch = Mapping[str, np.ndarray]


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Mesh of all devices (of all processes) along the axis `data`."""
    devices = jax.devices() if devices is None else devices
    # Auto axes: with the default Explicit ones, vmap over sharded images and unsharded keys fails.
    return jax.make_mesh((len(devices),), (DATA_AXIS,), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of the training state: a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: its first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Put a pytree of host arrays on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def shard_batch(batch: HostBatch, mesh: Mesh) -> dict[str, jax.Array]:
    """Split this process's share of a batch over its devices."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(array))
        for name, array in batch.items()
    }


def shard_whole_batch(batch: HostBatch, mesh: Mesh) -> dict[str, jax.Array]:
    """Split a batch that every process has, whole, over all devices.

    Filled up with zeros, which weigh nothing, until it divides over the devices.
    """
    missing = -len(batch["weight"]) % mesh.size
    sharding = batch_sharding(mesh)
    placed = {}
    for name, array in batch.items():
        padded = np.pad(array, [(0, missing), *[(0, 0)] * (array.ndim - 1)]) if missing else array
        placed[name] = jax.make_array_from_callback(
            padded.shape, sharding, lambda index, padded=padded: padded[index]
        )
    return placed


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raise ValueError unless every device gets the same number of crops."""
    if batch_size % mesh.size:
        below = batch_size // mesh.size * mesh.size
        nearest = f"{below}, {below + mesh.size}" if below else f"{mesh.size}"
        raise ValueError(
            f"train.batch_size={batch_size} cannot be split evenly over {mesh.size} devices: "
            f"choose {nearest} or another multiple of {mesh.size}"
        )


def check_devices(mesh: Mesh) -> None:
    """Raise ValueError unless every process has the same number of devices."""
    counts = collections.Counter(device.process_index for device in mesh.devices.flat)
    if len(set(counts.values())) > 1:
        told = ", ".join(f"process {index} {count}" for index, count in sorted(counts.items()))
        raise ValueError(
            f"the processes have different numbers of devices ({told}), but load equal parts of "
            "a batch: give each as many"
        )


def in_any_process(*flags: bool) -> tuple[bool, ...]:
    """Whether each flag holds in any process; every process must ask at the same step."""
    if jax.process_count() == 1:
        return flags
    gathered = multihost_utils.process_allgather(np.asarray(flags))
    return tuple(np.any(gathered, axis=0).tolist())


def fits_on_device(num_bytes: int, *, placement: str = "auto", limit_bytes: int = 0) -> bool:
    """Whether a set of crops of `num_bytes` is to be held by the device.

    `host` and `device` decide by themselves; `auto` compares with `limit_bytes` or, if that is 0,
    with a quarter of the free device memory (256 MiB where the device does not tell). Of several
    processes, which must all ask, each gets the same answer: no, if one of them has no room.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"data.placement={placement!r}: choose one of {', '.join(PLACEMENTS)}")
    if placement != "auto":
        return placement == "device"
    if not limit_bytes:
        statistics = jax.local_devices()[0].memory_stats() or {}
        limit_bytes = _BYTES_WITHOUT_STATISTICS
        if "bytes_limit" in statistics:
            free = statistics["bytes_limit"] - statistics["bytes_in_use"]
            limit_bytes = int(free * _SHARE_OF_FREE_MEMORY)
    (is_short,) = in_any_process(num_bytes > limit_bytes)
    return not is_short


def loading_threads(num_workers: int) -> int:
    """Threads that load batches: `num_workers`, or for −1 as many as suit the device.

    Where an accelerator steps, the main thread must not load: four a device, since two load 700
    crops of 512² a second (docs/performance.md) and an H100 takes up to 1000; within 2..8 and the
    cores. Where the cores step themselves, none. Raises ValueError below −1.
    """
    if num_workers < -1:
        raise ValueError(f"data.num_workers={num_workers}: choose 0 or more, or -1 for auto")
    if num_workers >= 0:
        return num_workers
    if jax.default_backend() == "cpu":
        return 0
    # The cores that this process may use; not every system tells.
    asked = getattr(os, "sched_getaffinity", None)
    cores = len(asked(0)) if asked else os.cpu_count() or 1
    return max(2, min(4 * jax.local_device_count(), cores - 1, 8))


class BatchIterator(Protocol):
    """Endless batches whose position can be saved and set (grain's iterators are such)."""

    def __next__(self) -> HostBatch: ...
    def get_state(self) -> dict[str, Any]: ...  # noqa: D102
    def set_state(self, state: dict[str, Any]) -> None: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What a training learns from, and what it is judged by.

    `batches` yields this process's share of host batches: `image` `[B, H, W, C]`, `target`
    `[B, H, W, K]` and `weight` `[B, H, W, 1]`, float32. With `resident`, the same three of all
    crops `[N, …]`, the devices hold these and `batches` yields `{"index": [B]}`. `validation()`
    starts a pass over the validation set, the same in every process.
    """

    batches: BatchIterator
    resident: HostBatch | None = None
    validation: Callable[[], Iterator[HostBatch]] | None = None


def batch_placer(
    mesh: Mesh, resident: HostBatch | None = None
) -> Callable[[HostBatch], dict[str, jax.Array]]:
    """Function from what an iterator yields to a batch `[B, S, S, …]` on the devices.

    Without `resident` the iterator yields batches, and these are copied. With `resident`, all crops
    `[N, S, S, …]`, every device holds these from now on, the iterator yields `{"index": [B]}`, and
    the device gathers: the same numbers without the pixels passing from the host again. Copies are
    asynchronous: a batch travels while the device works on the one before.
    """
    if resident is None:
        return lambda batch: shard_batch(batch, mesh)
    held = replicate(dict(resident), mesh)

    @functools.partial(jax.jit, out_shardings=batch_sharding(mesh))
    def gather(arrays: Any, index: jax.Array) -> Any:
        return jax.tree.map(lambda a: a.at[index].get(mode="promise_in_bounds"), arrays)

    return lambda batch: gather(held, shard_batch(batch, mesh)["index"])
