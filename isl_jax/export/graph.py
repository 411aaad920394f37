"""The network as an ONNX graph, written out from the architecture and the weights' own names."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from isl_jax.models.architecture import DECODER_FEATURES, STRIDE, DenseNetConfig
from isl_jax.models.batch_norm import EPSILON


class Graph:
    """An ONNX graph in the making; methods add a node and return the name of its output.

    `weights` is a state dict in PyTorch's names and layout; ONNX shares the layout.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._weights = weights
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add any operator of one output."""
        from onnx import helper

        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """A small array, by its content."""
        array = np.asarray(values, dtype)
        name = f"{array.dtype}{list(array.shape)}_{'_'.join(map(str, array.ravel().tolist()))}"
        return self._keep(name, array)

    def conv(self, x: str, name: str, *, stride: int = 1) -> str:
        """`Conv2d` padded by half its kernel, with the bias that the weights have or not."""
        kernel = self._weights[f"{name}.weight"]
        size = kernel.shape[-1]
        names = [
            f"{name}.{leaf}" for leaf in ("weight", "bias") if f"{name}.{leaf}" in self._weights
        ]
        return self.add(
            "Conv",
            x,
            *(self._keep(key, self._weights[key]) for key in names),
            kernel_shape=[size, size],
            pads=[size // 2] * 4,
            strides=[stride, stride],
        )

    def norm(self, x: str, name: str, *, relu: bool = True) -> str:
        """`BatchNorm2d` with its running statistics, and a ReLU."""
        leaves = ("weight", "bias", "running_mean", "running_var")
        arrays = [self._keep(f"{name}.{leaf}", self._weights[f"{name}.{leaf}"]) for leaf in leaves]
        y = self.add("BatchNormalization", x, *arrays, epsilon=EPSILON)
        return self.add("Relu", y) if relu else y

    def _keep(self, name: str, array: np.ndarray) -> str:
        from onnx import numpy_helper

        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name


def add_network(graph: Graph, x: str, config: DenseNetConfig, *, head: str) -> str:
    """`isl_jax.models.heads.build_network` in evaluation: image `[B, C, H, W]` to `[B, K, H, W]`.

    Sides that are no multiples of 32 are padded by reflection and cropped back, as there; sides
    must then be 17 or more, which ONNX's reflection asks for.
    """
    size = graph.add("Slice", graph.add("Shape", x), graph.constant([2]), graph.constant([4]))
    missing = graph.add("Mod", graph.add("Neg", size), graph.constant([STRIDE]))
    pads = graph.add("Concat", graph.constant([0] * 6), missing, axis=0)
    y = graph.add("Pad", x, pads, mode="reflect")
    y = _unet(graph, y, config, "" if head == "none" else "u_net.")
    y = graph.add("Slice", y, graph.constant([0, 0]), size, graph.constant([2, 3]))
    for index in (1, 2) if head != "none" else ():
        y = graph.conv(y, f"block_{index}.0")
        if head == "reference":
            y = graph.norm(y, f"block_{index}.1")
    return y


def _unet(graph: Graph, x: str, config: DenseNetConfig, prefix: str) -> str:
    skips = _encoder(graph, x, config, f"{prefix}encoder.features")
    y = skips.pop()
    scales = graph.constant([1, 1, 2, 2], np.float32)
    for index in range(len(DECODER_FEATURES)):
        y = graph.add(
            "Resize", y, "", scales,
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        if skips:
            y = graph.add("Concat", y, skips.pop(), axis=1)
        for conv in (1, 2):
            block = f"{prefix}decoder.blocks.{index}.conv{conv}"
            y = graph.norm(graph.conv(y, f"{block}.0"), f"{block}.1")
    return graph.conv(y, f"{prefix}segmentation_head.0")


def _encoder(graph: Graph, x: str, config: DenseNetConfig, prefix: str) -> list[str]:
    """Features at strides 2 … 32, finest first."""
    x = graph.norm(graph.conv(x, f"{prefix}.conv0", stride=2), f"{prefix}.norm0")
    features = [x]
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    last = len(config.block_config)
    for block, num_layers in enumerate(config.block_config, start=1):
        for index in range(1, num_layers + 1):
            layer = f"{prefix}.denseblock{block}.denselayer{index}"
            y = graph.conv(graph.norm(x, f"{layer}.norm1"), f"{layer}.conv1")
            y = graph.conv(graph.norm(y, f"{layer}.norm2"), f"{layer}.conv2")
            x = graph.add("Concat", x, y, axis=1)
        if block == last:
            break
        transition = f"{prefix}.transition{block}"
        x = graph.norm(x, f"{transition}.norm")
        features.append(x)
        x = graph.conv(x, f"{transition}.conv")
        x = graph.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return [*features, graph.norm(x, f"{prefix}.norm5", relu=False)]
