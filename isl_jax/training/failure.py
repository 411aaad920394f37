"""A step that is not finite: what it got and what it made, kept for whoever looks for the cause."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from isl_jax.training.state import TrainState
from isl_jax.training.step import TrainStep

FAILED_STEP = "failed_step"


def save_failed_step(
    workdir: Path,
    state: TrainState,
    batch: Mapping[str, jax.Array],
    unguarded_step: TrainStep,
) -> Path:
    """Write `failed_step/{before,batch,after}.npz` and return the folder.

    `state` is the one before the step; its memory is used up. Arrays are named by their place in
    `TrainState` and in the batch.
    """
    folder = workdir / FAILED_STEP
    batch_arrays = multihost_utils.process_allgather(dict(batch), tiled=True)
    state = dataclasses.replace(state, finite=jax.numpy.ones_like(state.finite))
    before = jax.device_get(state)
    after = jax.device_get(unguarded_step(state, batch)[0])
    if jax.process_index() == 0:
        folder.mkdir(exist_ok=True)
        for name, tree in {"before": before, "batch": batch_arrays, "after": after}.items():
            np.savez(folder / f"{name}.npz", allow_pickle=False, **_named(tree))
    return folder


def _named(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree.leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }
