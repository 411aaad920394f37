"""Variables of a network: initial values, and the transfer of trained ones."""

import dataclasses
import math
import zlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from isl_jax.models.architecture import STRIDE

Variables = Mapping[str, Any]


def init_variables(network: nn.Module, *, in_channels: int, seed: int) -> dict[str, Any]:
    """Initial variables, float32 numpy arrays, drawn on the host (compiling an init takes long).

    Distributions are the peers': He normal in the encoder (torchvision), He uniform in the decoder
    and Glorot uniform in the head (segmentation_models_pytorch), PyTorch's default in the two
    convolutions after it. Each array has its own generator, so equal names get equal values.
    """
    x = jax.ShapeDtypeStruct((1, STRIDE, STRIDE, in_channels), jnp.float32)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), x)
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(shapes, sep="/")
    values = {
        name: _draw(name, array.shape, flat.get(name.replace("/bias", "/kernel")), seed)
        for name, array in flat.items()
    }
    return flax.traverse_util.unflatten_dict(values, sep="/")


def _draw(name: str, shape: tuple[int, ...], kernel: Any, seed: int) -> np.ndarray:
    *parents, leaf = name.split("/")
    if leaf in ("scale", "var"):
        return np.ones(shape, np.float32)
    is_after_unet = "head" in parents
    if leaf == "mean" or (leaf == "bias" and not (is_after_unet and kernel is not None)):
        return np.zeros(shape, np.float32)
    height, width, inputs, outputs = kernel.shape if leaf == "bias" else shape
    fan_in, fan_out = height * width * inputs, height * width * outputs
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if "encoder" in parents:
        return (rng.standard_normal(shape, np.float32) * math.sqrt(2 / fan_in)).astype(np.float32)
    if is_after_unet:
        bound = math.sqrt(1 / fan_in)
    elif "segmentation_head" in parents:
        bound = math.sqrt(6 / (fan_in + fan_out))
    else:
        bound = math.sqrt(6 / fan_in)
    return rng.uniform(-bound, bound, shape).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class TransferReport:
    """Names of arrays (`collection/module/…`) by what a transfer did with them."""

    loaded: tuple[str, ...]
    initialised: tuple[str, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        parts = ("loaded", "initialised", "left_out")
        return "; ".join(_summary(part.replace("_", " "), getattr(self, part)) for part in parts)


def _summary(label: str, names: tuple[str, ...]) -> str:
    modules = dict.fromkeys(_module(name) for name in names)
    return f"{label} {len(names)} arrays" + (f" ({', '.join(modules)})" if modules else "")


def _module(name: str) -> str:
    parts = name.split("/")
    return "/".join(parts[1:3]) if parts[1] == "unet" else parts[1]


def transfer(source: Variables, target: Variables) -> tuple[dict[str, Any], TransferReport]:
    """Variables of `target` with the values of `source` wherever both have the module.

    A bare U-Net fills the `unet` of a network with a head. A module (encoder, one decoder block, a
    head) is taken whole or not at all: one of which only part matches by name and shape raises a
    ValueError that lists every such name, as does a source with nothing in common.
    """
    wanted: dict[str, Any] = flax.traverse_util.flatten_dict(dict(target), sep="/")
    found: dict[str, Any] = flax.traverse_util.flatten_dict(dict(source), sep="/")
    if "unet" in target["params"] and "unet" not in source["params"]:
        found = {name.replace("/", "/unet/", 1): value for name, value in found.items()}
    shared = {_module(name) for name in wanted} & {_module(name) for name in found}
    faults = [f"missing {name}" for name in wanted if _module(name) in shared and name not in found]
    faults += [
        f"unexpected {name}" for name in found if _module(name) in shared and name not in wanted
    ]
    faults += [
        f"{name} has shape {np.shape(found[name])}, expected {np.shape(wanted[name])}"
        for name in wanted
        if name in found and np.shape(found[name]) != np.shape(wanted[name])
    ]
    if faults or not shared:
        raise ValueError(
            "weights do not fit the network: " + "; ".join(faults or ["nothing shared"])
        )
    loaded = tuple(name for name in wanted if name in found)
    report = TransferReport(
        loaded=loaded,
        initialised=tuple(name for name in wanted if name not in found),
        left_out=tuple(name for name in found if name not in wanted),
    )
    values = {name: np.asarray(found.get(name, value)) for name, value in wanted.items()}
    return flax.traverse_util.unflatten_dict(values, sep="/"), report


def with_inputs(variables: Variables, in_channels: int) -> dict[str, Any]:
    """The variables of a network for images of `in_channels` planes instead of its own number.

    Each plane gets the sum of the first kernel over its own planes, divided by `in_channels`: an
    image whose planes are all the same gives what it gave before. Equal numbers change nothing.
    Raises ValueError for variables without such a kernel.
    """
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(dict(variables), sep="/")
    names = [name for name in flat if name.endswith("encoder/conv0/kernel")]
    if len(names) != 1 or np.ndim(flat[names[0]]) != 4:
        raise ValueError("weights do not fit the network: they have no first convolution")
    kernel = np.asarray(flat[names[0]])
    if kernel.shape[2] != in_channels:
        summed = kernel.sum(axis=2, keepdims=True, dtype=np.float64) / in_channels
        flat[names[0]] = np.repeat(summed.astype(kernel.dtype), in_channels, axis=2)
    return flax.traverse_util.unflatten_dict(flat, sep="/")
