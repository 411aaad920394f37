"""ONNX: a model file that onnxruntime, OpenVINO, TensorRT and browsers run, of any image size."""

import json
from typing import Any

import numpy as np

from isl_jax.data.normalisation import PAPER
from isl_jax.export.check import check_equal, draw_images, exact_outputs, need
from isl_jax.export.flat import add_normalisation
from isl_jax.export.graph import Graph, add_network
from isl_jax.inference.model import Model
from isl_jax.models.architecture import encoder_config
from isl_jax.models.port import torch_from_variables

# What onnxruntime 1.12 (2022) and all later versions read.
OPSET, IR_VERSION = 17, 8


def onnx_bytes(model: Model) -> bytes:
    """Serialised model: standardised `image` `[B, C, H, W]` to raw `output` `[B, K, H, W]`.

    Both float32; B, H and W are free. The whole `model.json` travels as metadata, so that outputs
    keep their meaning. Raises ValueError if onnx or onnxruntime is not installed, RuntimeError if
    onnxruntime's outputs are not ours within 1e-4.
    """
    need("onnxruntime")
    content = network_bytes(model)
    images = draw_images(model, 70, 97)  # off the network's grid of 32
    (found,) = run_onnx(content, np.moveaxis(images, -1, 1))
    check_equal(np.moveaxis(found, 1, -1), exact_outputs(model, images), "onnxruntime")
    return content


def network_bytes(model: Model) -> bytes:
    """What `onnx_bytes` gives, unchecked."""

    def name_output(graph: Graph, y: str) -> None:
        graph.add("Identity", y, output="output")

    return _build(model, ("output",), name_output)


def maps_bytes(model: Model) -> bytes:
    """The same network with one output a map `[B, 1, H, W]`, as `Model.predict` gives them.

    It takes standardised planes, whatever the model's normalisation: what that asks for beside is
    part of the graph.

    `stain` in raw units; `distance` in map units; `probability` 0..1.
    """

    def add_maps(graph: Graph, y: str) -> None:
        task, scale = model.info.task, model.info.stain_scale
        if task.is_stain:
            low, high = (0.0, 1.0) if scale is None else (scale.low, scale.high)
            if scale is not None and np.isfinite(scale.limits).all():
                ends = [graph.constant(end, np.float32) for end in scale.limits]
                y = graph.add("Clip", y, *ends)
            if scale is not None and scale.rule == "field":  # the target is a square root
                y = graph.add("Mul", y, y)
            y = graph.add("Mul", y, graph.constant(high - low, np.float32))
            graph.add("Add", y, graph.constant(low, np.float32), output=task.map_names[-1])
            return
        logit = y
        if task.has_distance:
            axis, middle = graph.constant([1]), graph.constant([1])
            first = graph.add("Slice", y, graph.constant([0]), middle, axis)
            unit = graph.constant(task.distance_unit, np.float32)
            graph.add("Mul", first, unit, output=task.map_names[0])
            logit = graph.add("Slice", y, middle, graph.constant([2]), axis)
        if task.activation == "shifted_sigmoid":  # eq. (1)
            logit = graph.add("Sub", logit, graph.constant(task.centre, np.float32))
            logit = graph.add("Mul", logit, graph.constant(task.slope, np.float32))
        graph.add("Sigmoid", logit, output=task.map_names[-1])

    return _build(model, model.info.task.map_names, add_maps)


def run_onnx(content: bytes, images: np.ndarray) -> list[np.ndarray]:
    """All outputs of a serialised model on the CPU."""
    runtime = need("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})


def _build(model: Model, outputs: tuple[str, ...], finish: Any) -> bytes:
    onnx = need("onnx")
    network = model.info.network
    graph = Graph(torch_from_variables(model.variables))
    is_whole = outputs != ("output",)
    image = add_normalisation(graph, "image", model.info.normalisation if is_whole else PAPER)
    y = add_network(graph, image, encoder_config(network.encoder), head=network.head)
    finish(graph, y)
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    planes = 1 if is_whole else network.out_channels
    sides = ["height", "width"]
    described = helper.make_graph(
        graph.nodes,
        "isl_jax",
        [helper.make_tensor_value_info("image", float32, ["batch", network.in_channels, *sides])],
        [helper.make_tensor_value_info(n, float32, ["batch", planes, *sides]) for n in outputs],
        list(graph.initializers.values()),
    )
    proto = helper.make_model(
        described,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="isl-jax",
    )
    helper.set_model_props(proto, {"isl_jax": json.dumps(model.info.to_json())})
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()
