import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from isl_jax.models.architecture import ENCODERS
from isl_jax.models.densenet import DenseNet
from isl_jax.models.heads import build_network
from isl_jax.models.port import (
    adapt_first_convolution,
    torch_from_variables,
    variables_from_torch,
)
from isl_jax.models.variables import init_variables
from isl_jax.models.weights import read_state_dict

Variables = dict[str, Any]


def assert_equal(left: Variables, right: Variables) -> None:
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture(scope="module")
def tiny_file(fixtures: Path) -> dict[str, np.ndarray]:
    return read_state_dict(fixtures / "tiny_densenet_torchvision.pth")


@pytest.mark.parametrize("file", ["tiny_densenet_hubstyle.pth", "tiny_densenet_torchvision.pth"])
def test_tiny_densenet_activations(fixtures: Path, file: str) -> None:
    state_dict = read_state_dict(fixtures / file)
    variables = variables_from_torch(state_dict, encoder="tiny")
    encoder = {group: tree["encoder"] for group, tree in variables.items()}
    oracle = np.load(fixtures / "tiny_densenet_io.npz")
    x = oracle["x"].transpose(0, 2, 3, 1)
    features, inner = DenseNet(ENCODERS["tiny"]).apply(
        encoder, x, train=False, capture_intermediates=True
    )
    inner = inner["intermediates"]
    blocks = [f"denseblock{index}" for index in (1, 2, 3, 4)]
    found = {name: inner[name]["__call__"][0].x for name in blocks}
    found |= {"conv0": inner["conv0"]["__call__"][0], "norm5": features[-1]}
    for name, values in found.items():
        expected = oracle[f"act_{name}"].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    stem = np.maximum(oracle["act_norm0"], 0).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(features[0], stem, rtol=1e-4, atol=1e-5)
    for index in (1, 2, 3):
        ours = inner[f"transition{index}_conv"]["__call__"][0]
        expected = oracle[f"act_transition{index}"].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    pooled = np.maximum(np.asarray(features[-1]), 0).mean(axis=(1, 2))
    logits = pooled @ state_dict["classifier.weight"].T + state_dict["classifier.bias"]
    np.testing.assert_allclose(logits, oracle["logits"], rtol=1e-4, atol=1e-5)


def test_hub_file_and_current_file_load_equal(fixtures: Path) -> None:
    hub, current = (
        variables_from_torch(
            read_state_dict(fixtures / f"tiny_densenet_{kind}.pth"), encoder="tiny"
        )
        for kind in ("hubstyle", "torchvision")
    )
    assert_equal(hub, current)


def test_every_name_of_the_hub_file_finds_its_place(fixtures: Path) -> None:
    keys = json.loads((fixtures / "densenet121_keys.json").read_text())
    assert len(keys) == 727
    current = {
        name: np.full(shape, i, np.float32) for i, (name, (_, shape)) in enumerate(keys.items())
    }
    hub = {keys[name][0]: array for name, array in current.items() if keys[name][0]}
    assert len(hub) == 606
    variables = variables_from_torch(hub)
    assert_equal(variables, variables_from_torch(current))
    wanted = init_variables(build_network(out_channels=1), in_channels=3, seed=0)
    for group in ("params", "batch_stats"):
        shapes = jax.tree.map(np.shape, variables[group]["encoder"])
        assert shapes == jax.tree.map(np.shape, wanted[group]["encoder"])


@pytest.mark.parametrize("encoder", ["densenet121", "densenet161", "densenet169", "densenet201"])
def test_a_fresh_network_is_what_port_expects(encoder: str) -> None:
    network = build_network(out_channels=2, encoder=encoder)
    variables = init_variables(network, in_channels=5, seed=0)
    assert_equal(variables, variables_from_torch(torch_from_variables(variables), encoder=encoder))


@pytest.mark.parametrize(
    ("head", "out_channels"), [("none", 1), ("none", 2), ("paper", 2), ("reference", 2)]
)
def test_export_then_import_is_the_identity(
    tiny_variables: Callable[..., Variables], head: str, out_channels: int
) -> None:
    variables = tiny_variables(head, out_channels)
    state_dict = torch_from_variables(variables)
    assert_equal(variables, variables_from_torch(state_dict, encoder="tiny"))
    again = torch_from_variables(variables_from_torch(state_dict, encoder="tiny"))
    assert again.keys() == state_dict.keys()
    for name, array in state_dict.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == (np.int64 if name.endswith("tracked") else np.float32)


def test_names_of_the_authors_cell_checkpoint(tiny_variables: Callable[..., Variables]) -> None:
    names = set(torch_from_variables(tiny_variables("reference", 2)))
    assert "u_net.encoder.features.transition1.norm.running_var" in names
    assert "u_net.decoder.blocks.4.conv2.1.weight" in names
    assert {"block_1.0.weight", "block_1.1.running_mean", "block_2.0.bias"} <= names


def test_data_parallel_prefix_is_dropped(tiny_variables: Callable[..., Variables]) -> None:
    variables = tiny_variables()
    wrapped = {f"module.{name}": a for name, a in torch_from_variables(variables).items()}
    assert_equal(variables, variables_from_torch(wrapped, encoder="tiny"))


def test_every_fault_is_listed(tiny_file: dict[str, np.ndarray]) -> None:
    broken = dict(tiny_file)
    del broken["features.norm0.weight"], broken["features.norm5.running_mean"]
    broken["features.denseblock9.conv.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    broken["features.transition1.conv.weight"] = np.zeros((8, 8, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"4 names") as raised:
        variables_from_torch(broken, encoder="tiny")
    message = str(raised.value)
    assert "missing encoder.features.norm0.weight (8,)" in message
    assert "missing encoder.features.norm5.running_mean" in message
    assert "unexpected encoder.features.denseblock9.conv.weight (1, 1, 1, 1)" in message
    assert "encoder.features.transition1.conv.weight has shape (8, 8, 3, 3), expected" in message


def test_a_whole_unet_must_be_whole(tiny_variables: Callable[..., Variables]) -> None:
    state_dict = torch_from_variables(tiny_variables())
    del state_dict["decoder.blocks.2.conv1.0.weight"], state_dict["segmentation_head.0.bias"]
    with pytest.raises(ValueError, match=r"missing decoder\.blocks\.2.*missing segmentation_head"):
        variables_from_torch(state_dict, encoder="tiny")


def test_an_unknown_array_is_not_exported() -> None:
    with pytest.raises(ValueError, match="encoder/conv0/mask"):
        torch_from_variables({"params": {"encoder": {"conv0": {"mask": 1}}}, "batch_stats": {}})


@pytest.mark.parametrize("in_channels", [1, 2, 3, 4, 7])
def test_first_convolution_adapted_to_other_planes(in_channels: int) -> None:
    weight = np.random.default_rng(0).standard_normal((8, 3, 7, 7)).astype(np.float32)
    adapted = adapt_first_convolution(weight, in_channels)
    assert adapted.shape == (8, in_channels, 7, 7)
    assert adapted.dtype == np.float32
    if in_channels == 1:
        np.testing.assert_allclose(adapted[:, 0], weight[:, 0] + weight[:, 1] + weight[:, 2], 1e-5)
    for plane in range(in_channels if in_channels > 1 else 0):
        np.testing.assert_allclose(adapted[:, plane], weight[:, plane % 3] * 3 / in_channels, 1e-6)


def test_in_channels_adapts_a_file(tiny_file: dict[str, np.ndarray]) -> None:
    variables = variables_from_torch(tiny_file, encoder="tiny", in_channels=2)
    assert variables["params"]["encoder"]["conv0"]["kernel"].shape == (7, 7, 2, 8)
    with pytest.raises(ValueError, match="2 input channels"):
        adapt_first_convolution(np.zeros((8, 2, 7, 7), np.float32), 5)
