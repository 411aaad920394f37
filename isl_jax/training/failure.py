"""A step that is not finite: what it got and what it made, kept for whoever looks for the cause."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from isl_jax.files import written_whole
from isl_jax.training.step import Batch, TrainState, TrainStep

FAILED_STEP = "failed_step"


def fail(
    workdir: Path,
    step: int,
    values: Mapping[str, float],
    state: TrainState,
    batch: Batch,
    unguarded_step: TrainStep,
) -> NoReturn:
    """Write `failed_step/{before,batch,after}.npz` and raise FloatingPointError.

    `values` are the metrics of the step, `state` is the one before it, whose memory is used up.
    Arrays are named by their place in `TrainState` and in the batch.
    """
    folder = workdir / FAILED_STEP
    batch_arrays = multihost_utils.process_allgather(dict(batch), tiled=True)
    state = dataclasses.replace(state, finite=jax.numpy.ones_like(state.finite))
    before = jax.device_get(state).named()
    after = jax.device_get(unguarded_step(state, batch)[0]).named()
    if jax.process_index() == 0:
        with written_whole(folder) as draft:
            draft.mkdir()
            for name, tree in {"before": before, "batch": batch_arrays, "after": after}.items():
                np.savez(draft / f"{name}.npz", allow_pickle=False, **_named(tree))
    raise FloatingPointError(
        f"step {step}: the loss or its gradient is no longer finite ({dict(values)}); the state "
        f"before and after it and its batch are in {folder}; lower train.learning_rate or set "
        "train.clip_norm"
    )


def _named(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree.leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }
