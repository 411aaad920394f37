"""Data parallelism: one mesh axis, batches split along it, everything else replicated."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
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


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Put a pytree of host arrays on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Split this process's share of a batch over its devices, along the first axis."""
    sharding = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(array))
        for name, array in batch.items()
    }


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raise ValueError unless every device gets the same number of crops."""
    if batch_size % mesh.size:
        raise ValueError(
            f"train.batch_size={batch_size} cannot be split evenly over {mesh.size} devices: "
            f"choose a multiple of {mesh.size}"
        )
