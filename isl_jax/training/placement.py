"""Where the crops live during a training: on the host, a batch at a time, or on the device."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from isl_jax.training.devices import batch_sharding, replicate, shard_batch

PLACEMENTS = ("auto", "host", "device")

# `auto` keeps this share of the free device memory for crops: activations need the rest.
_SHARE_OF_FREE_MEMORY = 0.25
# And this much where the device does not tell (CPU).
_BYTES_WITHOUT_STATISTICS = 256 << 20

HostBatch = Mapping[str, np.ndarray]


def fits_on_device(num_bytes: int, *, placement: str = "auto", limit_bytes: int = 0) -> bool:
    """Whether a set of crops of `num_bytes` is to be held by the device.

    `host` and `device` decide by themselves; `auto` compares with `limit_bytes` or, if that is 0,
    with a quarter of the free device memory (256 MiB where the device does not tell).
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
    return num_bytes <= limit_bytes


def batch_placer(
    mesh: Mesh, resident: HostBatch | None = None
) -> Callable[[Sequence[HostBatch]], dict[str, jax.Array]]:
    """Function from the items that an iterator yields for a call of the step to device arrays.

    Without `resident` the items are batches, and are copied. With `resident`, all crops
    `[N, S, S, …]`, every device holds these from now on, an item is `{"index": [B]}`, and the
    device gathers: the same numbers without the pixels passing from the host again. Copies are
    asynchronous: a batch travels while the device works on the one before. The arrays are
    `[B, S, S, …]`, of several items `[steps, B, S, S, …]`.
    """

    def put(items: Sequence[HostBatch]) -> dict[str, jax.Array]:
        if len(items) == 1:
            return shard_batch(items[0], mesh)
        stacked = {name: np.stack([item[name] for item in items]) for name in items[0]}
        return shard_batch(stacked, mesh, axis=1)

    if resident is None:
        return put
    held = replicate(dict(resident), mesh)

    def gather(arrays: Any, index: jax.Array) -> Any:
        return jax.tree.map(lambda a: a.at[index].get(mode="promise_in_bounds"), arrays)

    gathers = [jax.jit(gather, out_shardings=batch_sharding(mesh, axis=axis)) for axis in (0, 1)]

    def pick(items: Sequence[HostBatch]) -> dict[str, jax.Array]:
        return gathers[len(items) > 1](held, put(items)["index"])

    return pick
