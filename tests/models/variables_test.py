"""Initial values, and which arrays a transfer takes."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from isl_jax.models.heads import build_network
from isl_jax.models.variables import init_variables, transfer

Variables = dict[str, Any]


def names_of(variables: Variables) -> set[str]:
    return set(flatten_dict(variables, sep="/"))


def test_isl_to_nucleus_takes_everything(tiny_variables: Callable[..., Variables]) -> None:
    pretext, fresh = tiny_variables(seed=1), tiny_variables(seed=2)
    variables, report = transfer(pretext, fresh)
    jax.tree.map(np.testing.assert_array_equal, variables, pretext)
    assert set(report.loaded) == names_of(fresh)
    assert report.initialised == report.left_out == ()


@pytest.mark.parametrize("head", ["paper", "reference"])
def test_isl_to_cell_head_keeps_the_stain(
    tiny_variables: Callable[..., Variables], head: Any
) -> None:
    pretext, fresh = tiny_variables(seed=1), tiny_variables(head, 2, seed=2)
    variables, report = transfer(pretext, fresh)
    jax.tree.map(np.testing.assert_array_equal, variables["params"]["unet"], pretext["params"])
    jax.tree.map(
        np.testing.assert_array_equal, variables["params"]["head"], fresh["params"]["head"]
    )
    assert len(report.loaded) == len(names_of(pretext))
    assert set(report.initialised) == {name for name in names_of(fresh) if "/head/" in name}
    assert "initialised" in str(report)
    assert "head" in str(report)


def test_encoder_alone_leaves_the_decoder_fresh(tiny_variables: Callable[..., Variables]) -> None:
    source = {k: {"encoder": v["encoder"]} for k, v in tiny_variables(seed=1).items()}
    for head, outputs in (("none", 2), ("paper", 2)):
        fresh = tiny_variables(head, outputs, seed=2)
        _, report = transfer(source, fresh)
        assert all("/encoder/" in name for name in report.loaded)
        assert len(report.loaded) == len(names_of(source))
        assert len(report.initialised) == len(names_of(fresh)) - len(report.loaded)


def test_left_out_modules_are_listed(tiny_variables: Callable[..., Variables]) -> None:
    source, target = tiny_variables(seed=1), tiny_variables(seed=2)
    source["params"]["classifier"] = {"kernel": np.zeros(3)}
    assert transfer(source, target)[1].left_out == ("params/classifier/kernel",)


def test_a_module_that_fits_in_part_is_refused_name_by_name(
    tiny_variables: Callable[..., Variables],
) -> None:
    source, target = tiny_variables(out_channels=1), tiny_variables(out_channels=2)
    del source["params"]["encoder"]["norm0"]["scale"]
    source["params"]["decoder2"]["conv3"] = {"kernel": np.zeros(3)}
    with pytest.raises(ValueError, match="do not fit") as raised:
        transfer(source, target)
    message = str(raised.value)
    assert "missing params/encoder/norm0/scale" in message
    assert "unexpected params/decoder2/conv3/kernel" in message
    assert (
        "params/segmentation_head/kernel has shape (3, 3, 16, 1), expected (3, 3, 16, 2)" in message
    )


def test_nothing_in_common_is_an_error(tiny_variables: Callable[..., Variables]) -> None:
    with pytest.raises(ValueError, match="nothing shared"):
        transfer({"params": {}, "batch_stats": {}}, tiny_variables())


def test_initial_values_follow_the_peers_distributions() -> None:
    network = build_network(out_channels=2, head="paper")
    params = init_variables(network, in_channels=3, seed=0)["params"]
    stem = params["unet"]["encoder"]["conv0"]["kernel"]
    assert stem.std() == pytest.approx(math.sqrt(2 / (49 * 3)), rel=0.03)
    decoder = params["unet"]["decoder1"]["conv2"]["kernel"]
    assert np.abs(decoder).max() == pytest.approx(math.sqrt(6 / (9 * 128)), rel=1e-3)
    last = params["unet"]["segmentation_head"]
    assert np.abs(last["kernel"]).max() == pytest.approx(math.sqrt(6 / (9 * 17)), rel=0.1)
    assert (last["bias"] == 0).all()
    first = params["head"]["conv1"]
    assert np.abs(first["kernel"]).max() <= 1 / 3
    assert (first["bias"] != 0).all()
    assert (params["unet"]["encoder"]["norm0"]["scale"] == 1).all()


def test_equal_seeds_equal_values_and_the_batch_norms_differ_not() -> None:
    network = build_network(out_channels=1, encoder="tiny")
    first, same, other = (init_variables(network, in_channels=2, seed=s) for s in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, same)
    jax.tree.map(np.testing.assert_array_equal, first["batch_stats"], other["batch_stats"])
    kernel = ("encoder", "conv0", "kernel")
    assert (flatten_dict(first["params"])[kernel] != flatten_dict(other["params"])[kernel]).all()
    assert {leaf.dtype for leaf in jax.tree.leaves(first)} == {np.dtype("float32")}
