"""PyTorch state dicts to Flax variables and back, strict in both directions; numpy only.

Understood: torchvision's DenseNets (hub file with dotted names such as `norm.1`, and current
names), timm's (same names), whole `segmentation_models_pytorch` U-Nets, and the original authors'
checkpoints (a bare U-Net, or `u_net.` with the cell head `block_1`, `block_2`).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from isl_jax.models.architecture import DECODER_FEATURES, RGB, DenseNetConfig, encoder_config

StateDict = Mapping[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]

_COUNTER = "num_batches_tracked"
# our leaf -> (collection, PyTorch's leaf)
_LEAVES = {
    "kernel": ("params", "weight"),
    "scale": ("params", "weight"),
    "bias": ("params", "bias"),
    "mean": ("batch_stats", "running_mean"),
    "var": ("batch_stats", "running_var"),
}
# PyTorch's module names -> ours; applied in this order. Reversed by `_torch_module`.
_MODULES = (
    (r"^u_net\.", "unet/"),
    (r"encoder\.features\.", "encoder/"),
    (r"(transition\d+)\.", r"\1_"),
    (r"decoder\.blocks\.(\d+)\.conv(\d)\.0$", r"decoder\1/conv\2"),
    (r"decoder\.blocks\.(\d+)\.conv(\d)\.1$", r"decoder\1/norm\2"),
    (r"segmentation_head\.0$", "segmentation_head"),
    (r"^block_(\d)\.0$", r"head/conv\1"),
    (r"^block_(\d)\.1$", r"head/norm\1"),
    (r"\.", "/"),
)


def variables_from_torch(
    state_dict: StateDict, *, encoder: str = "densenet121", in_channels: int | None = None
) -> dict[str, Any]:
    """Flax variables `{"params", "batch_stats"}` of a PyTorch state dict (arrays in its layout).

    A classifier's file gives the `encoder` alone, without the classifier. `in_channels` other than
    the file's adapts the first convolution as segmentation_models_pytorch does. ValueError lists
    every name that is missing, unexpected or of another shape.
    """
    arrays = _current_names(state_dict)
    _check(arrays, expected_shapes(arrays, encoder_config(encoder)))
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, array in arrays.items():
        module, leaf = name.rsplit(".", 1)
        collection, ours = _our_leaf(leaf, array.ndim)
        if array.ndim == 4:
            if module.endswith("features.conv0") and in_channels is not None:
                array = adapt_first_convolution(array, in_channels)
            array = array.transpose(2, 3, 1, 0)
        node = variables[collection]
        for part in _our_module(module).split("/"):
            node = node.setdefault(part, {})
        node[ours] = np.ascontiguousarray(array)
    return variables


def torch_from_variables(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """State dict, in PyTorch's names and layout, that the peer loads with `strict=True`.

    Of a plain U-Net these are the names of segmentation_models_pytorch; with a head, the authors'.
    """
    leaves = dict(_leaves(variables["params"])) | dict(_leaves(variables["batch_stats"]))
    state_dict: dict[str, np.ndarray] = {}
    for path, value in leaves.items():
        module, leaf = path.rsplit("/", 1)
        if leaf not in _LEAVES:
            raise ValueError(f"{path}: not an array of this network (known: {', '.join(_LEAVES)})")
        array = np.asarray(value)
        if leaf == "kernel":
            array = array.transpose(3, 2, 0, 1)
        name = _torch_module(module)
        state_dict[f"{name}.{_LEAVES[leaf][1]}"] = np.ascontiguousarray(array)
        if leaf == "var":
            state_dict[f"{name}.{_COUNTER}"] = np.zeros((), np.int64)
    return state_dict


def adapt_first_convolution(weight: np.ndarray, in_channels: int) -> np.ndarray:
    """First kernel `[O, 3, k, k]` for `in_channels` planes, as segmentation_models_pytorch does.

    One plane: the sum over RGB. Otherwise RGB in turn, scaled by 3 / in_channels.
    """
    if in_channels == weight.shape[1]:
        return weight
    if weight.shape[1] != RGB:
        raise ValueError(
            f"first convolution has {weight.shape[1]} input channels: only one of {RGB} can be "
            f"adapted to {in_channels}"
        )
    if in_channels == 1:
        return weight.sum(axis=1, keepdims=True)
    adapted = weight[:, np.arange(in_channels) % RGB] * (RGB / in_channels)
    return adapted.astype(weight.dtype)


def _current_names(state_dict: StateDict) -> dict[str, np.ndarray]:
    """Names as in a whole U-Net, without the counters, which nothing here reads, and classifier."""
    is_classifier = any(name.removeprefix("module.").startswith("features.") for name in state_dict)
    arrays = {}
    for name, array in state_dict.items():
        name = name.removeprefix("module.")
        if name.endswith(_COUNTER) or (is_classifier and name.startswith("classifier.")):
            continue
        # The rule by which torchvision loads its own hub files.
        name = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)
        arrays[f"encoder.{name}" if is_classifier else name] = np.asarray(array)
    return arrays


def _check(arrays: StateDict, expected: Shapes) -> None:
    faults = [f"missing {name} {shape}" for name, shape in expected.items() if name not in arrays]
    faults += [f"unexpected {name} {a.shape}" for name, a in arrays.items() if name not in expected]
    faults += [
        f"{name} has shape {arrays[name].shape}, expected {shape}"
        for name, shape in expected.items()
        if name in arrays and arrays[name].shape != shape
    ]
    if faults:
        raise ValueError(f"state dict does not fit ({len(faults)} names): " + "; ".join(faults))


def _our_leaf(leaf: str, ndim: int) -> tuple[str, str]:
    if leaf == "weight":
        return "params", "kernel" if ndim == 4 else "scale"
    return next((group, ours) for ours, (group, theirs) in _LEAVES.items() if theirs == leaf)


def _our_module(name: str) -> str:
    for pattern, replacement in _MODULES:
        name = re.sub(pattern, replacement, name)
    return name


def _torch_module(path: str) -> str:
    name = re.sub(r"^unet/", "u_net/", path)
    name = re.sub(r"(transition\d+)_", r"\1/", name)
    name = re.sub(r"\bencoder/", "encoder/features/", name)
    for ours, index in (("conv", 0), ("norm", 1)):
        name = re.sub(rf"\bdecoder(\d+)/{ours}(\d)$", rf"decoder/blocks/\1/conv\2/{index}", name)
        name = re.sub(rf"^head/{ours}(\d)$", rf"block_\1/{index}", name)
    return re.sub(r"\bsegmentation_head$", "segmentation_head/0", name).replace("/", ".")


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name}/")
        else:
            yield path + name, value


def expected_shapes(arrays: StateDict, config: DenseNetConfig) -> Shapes:
    """Every name and shape of the network that `arrays` most likely holds."""
    prefix = "u_net." if any(name.startswith("u_net.") for name in arrays) else ""

    def size(name: str, axis: int, default: int) -> int:
        array = arrays.get(prefix + name)
        return default if array is None or array.ndim != 4 else array.shape[axis]

    shapes, channels = _encoder_shapes(config, size("encoder.features.conv0.weight", 1, RGB))
    if any(not name.startswith(f"{prefix}encoder.") for name in arrays):
        outputs = size("segmentation_head.0.weight", 0, 1)
        shapes |= _decoder_shapes(channels, outputs)
    shapes = {prefix + name: shape for name, shape in shapes.items()}
    if prefix:
        is_normalised = any(re.match(r"block_\d\.1\.", name) for name in arrays)
        for index, inputs in ((1, 1), (2, 2)):
            shapes |= _convolution(f"block_{index}.0", 3, inputs, 2)
            shapes[f"block_{index}.0.bias"] = (2,)
            if is_normalised:
                shapes |= _norm(f"block_{index}.1", 2)
    return shapes


def _encoder_shapes(config: DenseNetConfig, in_channels: int) -> tuple[Shapes, list[int]]:
    """Names and shapes, and the channels of the five features."""
    features = config.num_init_features
    wide = config.bn_size * config.growth_rate
    shapes = _convolution("conv0", 7, in_channels, features) | _norm("norm0", features)
    channels = [features]
    for block, num_layers in enumerate(config.block_config, start=1):
        for index in range(1, num_layers + 1):
            layer = f"denseblock{block}.denselayer{index}"
            shapes |= _norm(f"{layer}.norm1", features)
            shapes |= _convolution(f"{layer}.conv1", 1, features, wide)
            shapes |= _norm(f"{layer}.norm2", wide)
            shapes |= _convolution(f"{layer}.conv2", 3, wide, config.growth_rate)
            features += config.growth_rate
        channels.append(features)
        if block < len(config.block_config):
            shapes |= _norm(f"transition{block}.norm", features)
            shapes |= _convolution(f"transition{block}.conv", 1, features, features // 2)
            features //= 2
    shapes |= _norm(f"norm{len(config.block_config) + 1}", features)
    return {f"encoder.features.{name}": shape for name, shape in shapes.items()}, channels


def _decoder_shapes(channels: list[int], out_channels: int) -> Shapes:
    shapes: Shapes = {}
    *skips, inputs = channels
    for index, features in enumerate(DECODER_FEATURES):
        inputs += skips.pop() if skips else 0
        for conv in (1, 2):
            block = f"decoder.blocks.{index}.conv{conv}"
            shapes |= _convolution(f"{block}.0", 3, inputs, features) | _norm(
                f"{block}.1", features
            )
            inputs = features
    shapes |= _convolution("segmentation_head.0", 3, inputs, out_channels)
    shapes["segmentation_head.0.bias"] = (out_channels,)
    return shapes


def _convolution(name: str, size: int, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, size, size)}


def _norm(name: str, features: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (features,) for leaf in leaves}
