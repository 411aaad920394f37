"""The network at work on tiles: compiled once a shape, in batches that fit the devices."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from isl_jax.inference.augmented import augmented
from isl_jax.inference.tiling import TILE
from isl_jax.models.architecture import STRIDE
from isl_jax.models.heads import shifted_sigmoid
from isl_jax.task import Task
from isl_jax.training.devices import data_mesh, replicate, shard_batch
from isl_jax.training.losses import loss_parameters

# A batch may fill this share of a device's memory; one that still does not fit is halved.
_SHARE_OF_MEMORY = 0.6
# Side of the image whose compiled program tells how much of it a pixel takes.
_PROBE = 512
_MAX_BATCH = 64
_OTHER_WEIGHTS = (
    flax.errors.ScopeParamShapeError,
    flax.errors.ScopeParamNotFoundError,
    flax.errors.ScopeCollectionNotFound,
)


class TileTooLargeError(MemoryError):
    """Not even one tile of this size fits into the device's memory."""


@functools.lru_cache(maxsize=8)
def _compiled(network: nn.Module, task: Task | None) -> Any:
    def maps(variables: Any, images: jax.Array) -> jax.Array:
        outputs = jnp.asarray(network.apply(variables, images, train=False), jnp.float32)
        if task is None or task.is_stain:
            return outputs
        # float32 from the network to the labels: rounding makes ties, and ties make markers.
        numbers = loss_parameters(task)
        probability = shifted_sigmoid(outputs[..., -1:], numbers.slope, numbers.centre)
        return jnp.concatenate([outputs[..., :-1] * task.distance_unit, probability], axis=-1)

    return jax.jit(maps)


def _is_exhausted(error: Exception) -> bool:
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


class Forward:
    """A network with its weights on this process's devices.

    With a `task`, outputs are maps: stain as it is, distance in map units, probability; without
    one they are the network's raw outputs. Each is the mean over `tta` flips and turns
    (`augmented`).
    """

    def __init__(
        self, network: nn.Module, variables: Any, *, task: Task | None = None, tta: int = 1
    ) -> None:
        self._function = _compiled(network, task)
        self._tta = tta
        self._variables = variables
        self._mesh = data_mesh(jax.local_devices())
        self._on_one: Any = None
        self._on_all: Any = None
        self._pixels_per_device: int | None = None
        self._batch_sizes: dict[tuple[int, ...], int] = {}

    def check(self, channels: int) -> None:
        """ValueError if the weights are not those of the network; nothing is computed."""
        image = jax.ShapeDtypeStruct((1, STRIDE, STRIDE, channels), np.float32)
        try:
            jax.eval_shape(self._function, self._variables, image)
        except Exception as error:  # whatever flax and jax raise of weights that do not fit
            told = " ".join(str(error).split())[:200]
            raise ValueError(f"the weights do not fit the model's description: {told}") from error

    def batch_size(self, shape: tuple[int, ...]) -> int:
        """Images of `shape` (H, W, C) in a batch: what should fit, or what has been found to."""
        if self._pixels_per_device is None:
            self._pixels_per_device = self._pixel_budget(shape[2])
        fits = max(1, self._pixels_per_device // (shape[0] * shape[1]))
        # Powers of two: last, smaller batches then need few compiled programs.
        guess = 1 << (min(fits, _MAX_BATCH).bit_length() - 1)
        return self._batch_sizes.get(shape, guess * self._mesh.size)

    def _pixel_budget(self, channels: int) -> int:
        """Pixels that a device computes at once; on the host one tile."""
        limit = _device_memory()
        if limit is None:
            return TILE * TILE
        image = jax.ShapeDtypeStruct((1, _PROBE, _PROBE, channels), np.float32)
        memory = self._function.lower(self._variables, image).compile().memory_analysis()
        needed = memory.temp_size_in_bytes + memory.output_size_in_bytes
        per_pixel = needed / _PROBE**2 + channels * image.dtype.itemsize
        return int(_SHARE_OF_MEMORY * limit / per_pixel)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Outputs `[B, H, W, K]` float32 of standardised images `[B, H, W, C]`, in one batch."""
        return augmented(lambda turned: np.asarray(self._start(turned)), images, self._tta)

    def stream(self, tiles: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Outputs `[H, W, K]` of standardised tiles `[H, W, C]`, in order; batched by shape.

        A batch that does not fit into device memory is halved, for good. Raises TileTooLargeError
        when one image alone does not fit.
        """
        for shape, same in itertools.groupby(tiles, key=lambda tile: tile.shape):
            while group := list(itertools.islice(same, self.batch_size(shape))):
                yield from self._run(group, shape)

    def _run(self, group: list[np.ndarray], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        while group:
            size = min(self.batch_size(shape), 1 << (len(group) - 1).bit_length())
            now, rest = group[:size], group[size:]
            batch = np.zeros((size, *shape), np.float32)
            np.stack(now, out=batch[: len(now)])
            try:
                outputs = self(batch)
            except Exception as error:
                if not _is_exhausted(error):
                    raise
                if size == 1:
                    raise TileTooLargeError(
                        f"an image of {shape[0]} × {shape[1]} pixels does not fit into the memory "
                        "of the device; choose a smaller tile"
                    ) from error
                self._batch_sizes[shape] = size // 2
                continue
            yield from outputs[: len(now)]
            group = rest

    def _start(self, images: np.ndarray) -> jax.Array:
        try:
            if self._mesh.size > 1 and len(images) % self._mesh.size == 0:
                if self._on_all is None:
                    self._on_all = replicate(self._variables, self._mesh)
                batch = shard_batch({"image": images}, self._mesh)["image"]
                return self._function(self._on_all, batch)
            if self._on_one is None:
                self._on_one = jax.device_put(self._variables)
            return self._function(self._on_one, jnp.asarray(images))
        except _OTHER_WEIGHTS as error:
            raise ValueError(f"the weights do not fit the model's description: {error}") from error


def _device_memory() -> int | None:
    """Bytes of the smallest device of this process; None on the host."""
    limits = [(d.memory_stats() or {}).get("bytes_limit") for d in jax.local_devices()]
    return min((limit for limit in limits if limit), default=None)
