"""The normalisation of a model as part of an ONNX graph, for formats that have no words for it.

The same steps as `data.background`, on planes that have been standardised: to be made flat does not
depend on their unit.
"""

import numpy as np

from isl_jax.data.background import BLOCK, BLUR, BRIGHTEST, OUTLIER, ROUNDS
from isl_jax.data.normalisation import Normalisation
from isl_jax.export.graph import Graph


def add_normalisation(graph: Graph, x: str, normalisation: Normalisation) -> str:
    """Standardised planes `[B, C, H, W]` → what the network reads, as `Levels.apply` gives it."""
    if normalisation.kind == "flat":
        x = _flat(graph, x)
    if normalisation.clip is None:
        return x
    ends = [graph.constant(sign * normalisation.clip, np.float32) for sign in (-1, 1)]
    return graph.add("Clip", x, *ends)


def _flat(graph: Graph, x: str) -> str:
    means, variances = _blocks(graph, x)
    keep = _scaled(graph, means, 0, 1)
    middle = _mean(graph, means, keep)
    for _ in range(ROUNDS):
        distance = graph.add("Abs", graph.add("Sub", means, middle))
        variance = _mean(graph, graph.add("Mul", distance, distance), keep)
        limit = _scaled(graph, graph.add("Sqrt", variance), OUTLIER, 1e-6)
        keep = graph.add("Cast", graph.add("LessOrEqual", distance, limit), to=1)  # float32
        middle = _mean(graph, means, keep)
    kept = graph.add("Mul", graph.add("Sub", means, middle), keep)
    weight = graph.add("Max", _blurred(graph, keep), graph.constant(1e-6, np.float32))
    surface = graph.add("Add", middle, graph.add("Div", _blurred(graph, kept), weight))
    distance = graph.add("Sub", means, surface)
    squares = graph.add("Add", variances, graph.add("Mul", distance, distance))
    deviations = graph.add("Sqrt", squares)
    spread = _mean(graph, deviations, keep)
    for _ in range(ROUNDS):
        most = _scaled(graph, spread, BRIGHTEST, 0)
        spread = _mean(graph, graph.add("Min", deviations, most), keep)
    # Of a plane without contrast there is nothing to divide.
    spread = graph.add("Max", spread, graph.constant(1e-12, np.float32))
    return graph.add("Div", graph.add("Sub", x, _at_pixels(graph, surface, x)), spread)


def _scaled(graph: Graph, x: str, factor: float, offset: float) -> str:
    product = graph.add("Mul", x, graph.constant(factor, np.float32))
    return graph.add("Add", product, graph.constant(offset, np.float32))


def _blocks(graph: Graph, x: str) -> tuple[str, str]:
    """Means and variances of blocks `[B, C, rows, columns]`; the last ones may be smaller."""
    size = _side(graph, x)
    missing = graph.add("Mod", graph.add("Neg", size), graph.constant([BLOCK]))
    pads = graph.add("Concat", graph.constant([0] * 6), missing, axis=0)

    def pooled(plane: str) -> str:
        padded = graph.add("Pad", plane, pads)
        return graph.add("AveragePool", padded, kernel_shape=[BLOCK] * 2, strides=[BLOCK] * 2)

    share = pooled(_scaled(graph, x, 0, 1))
    means = graph.add("Div", pooled(x), share)
    squares = graph.add("Div", pooled(graph.add("Mul", x, x)), share)
    variances = graph.add("Sub", squares, graph.add("Mul", means, means))
    return means, graph.add("Max", variances, graph.constant(0, np.float32))


def _side(graph: Graph, x: str) -> str:
    return graph.add("Slice", graph.add("Shape", x), graph.constant([2]), graph.constant([4]))


def _mean(graph: Graph, x: str, keep: str) -> str:
    """Mean of the kept blocks of each plane, `[B, C, 1, 1]`."""
    axes = graph.constant([2, 3])
    total = graph.add("ReduceSum", graph.add("Mul", x, keep), axes, keepdims=1)
    return graph.add("Div", total, graph.add("ReduceSum", keep, axes, keepdims=1))


def _blurred(graph: Graph, x: str) -> str:
    """A Gaussian on the grid, zeros beyond it; cut off at four standard deviations."""
    sigma = BLUR / BLOCK
    reach = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    shape = graph.add("Shape", x)
    alone = graph.add("Concat", graph.constant([-1, 1]), _side(graph, x), axis=0)
    y = graph.add("Reshape", x, alone)
    for sides in ((len(kernel), 1), (1, len(kernel))):
        pads = [side // 2 for side in sides] * 2
        weights = graph.constant(kernel.reshape(1, 1, *sides), np.float32)
        y = graph.add("Conv", y, weights, kernel_shape=list(sides), pads=pads)
    return graph.add("Reshape", y, shape)


def _at_pixels(graph: Graph, surface: str, x: str) -> str:
    """The surface between the centres of the blocks, for each pixel of `x`."""
    scales = graph.constant([1, 1, BLOCK, BLOCK], np.float32)
    whole = graph.add(
        "Resize", surface, "", scales, mode="linear", coordinate_transformation_mode="half_pixel"
    )
    axes = graph.constant([2, 3])
    return graph.add("Slice", whole, graph.constant([0, 0]), _side(graph, x), axes)
