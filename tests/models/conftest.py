"""The stored peers, and weights drawn by name as theirs were."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isl_jax.models.heads import build_network
from isl_jax.models.port import torch_from_variables, variables_from_torch
from isl_jax.models.variables import init_variables

Oracle = Mapping[str, np.ndarray]


@pytest.fixture(scope="session")
def fixtures() -> Path:
    return Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def unet_oracle(fixtures: Path) -> Iterator[Oracle]:
    with np.load(fixtures / "smp_unet_densenet121.npz") as arrays:
        yield dict(arrays)


def drawn_weight(salt: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(f"{salt}:{name}".encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if name.endswith(("running_mean", ".bias")):
        return 0.1 * rng.standard_normal(shape)
    if len(shape) == 4:
        return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return 1 + 0.1 * rng.standard_normal(shape)


@pytest.fixture(scope="session")
def drawn_state_dict(unet_oracle: Oracle) -> Callable[[int], dict[str, np.ndarray]]:
    """Classes -> the float64 state dict of the oracle's U-Net."""

    def draw(classes: int) -> dict[str, np.ndarray]:
        variables = init_variables(build_network(out_channels=classes), in_channels=3, seed=0)
        salt = str(unet_oracle["salt"])
        return {
            name: drawn_weight(salt, name, array.shape)
            for name, array in torch_from_variables(variables).items()
        }

    return draw


@pytest.fixture(scope="session")
def tiny_variables() -> Callable[..., dict[str, Any]]:
    """Variables of a tiny network with every array random (fresh BatchNorms are too symmetric)."""

    def draw(head: str = "none", out_channels: int = 1, seed: int = 0) -> dict[str, Any]:
        network = build_network(out_channels=out_channels, head=head, encoder="tiny")  # type: ignore[arg-type]
        state_dict = torch_from_variables(init_variables(network, in_channels=3, seed=seed))
        state_dict = {
            name: drawn_weight(str(seed), name, array.shape).astype(np.float32)
            for name, array in state_dict.items()
        }
        return variables_from_torch(state_dict, encoder="tiny")

    return draw
