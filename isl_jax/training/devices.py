"""Data parallelism: one mesh axis, batches split along it, everything else replicated."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Mesh of all devices (of all processes) along the axis `data`."""
    devices = jax.devices() if devices is None else devices
    # Auto axes: with the default Explicit ones, vmap over sharded images and unsharded keys fails.
    return jax.make_mesh((len(devices),), (DATA_AXIS,), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of the training state: a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
    """Sharding of a batch: its `axis` is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Put a pytree of host arrays on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def shard_batch(
    batch: Mapping[str, np.ndarray], mesh: Mesh, *, axis: int = 0
) -> dict[str, jax.Array]:
    """Split this process's share of a batch over its devices, along `axis`."""
    sharding = batch_sharding(mesh, axis=axis)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(array))
        for name, array in batch.items()
    }


def shard_whole_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
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
        raise ValueError(
            f"train.batch_size={batch_size} cannot be split evenly over {mesh.size} devices: "
            f"choose a multiple of {mesh.size}"
        )


def in_any_process(flag: bool) -> bool:
    """Whether `flag` holds in any process; every process must ask at the same step."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))
