"""Alpha of eq. (2), `auto`: the initial ratio of MSE to BCE, the paper's rule (section 2.3)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from isl_jax.task import Task
from isl_jax.training.devices import BatchIterator, TrainingData, batch_placer, data_mesh
from isl_jax.training.losses import loss_parameters
from isl_jax.training.settings import RunSettings, TrainSettings
from isl_jax.training.step import Batch, TrainState, TrainStep, create_state, make_train_step


def initial_ratio(
    train_step: TrainStep,
    state: TrainState,
    batches: BatchIterator,
    place: Callable[[Any], Batch],
    *,
    num_batches: int,
) -> float:
    """Ratio of MSE to BCE over the next batches, which stay the next ones; nothing is learnt.

    The training step itself on copies that are thrown away: a step that only measures would have to
    be compiled for these few batches.
    """
    position, parts = batches.get_state(), []
    for _ in range(num_batches):
        copied, batch = jax.tree.map(jnp.copy, state), place(next(batches))
        parts.append(train_step(copied, batch)[1])
    batches.set_state(position)
    return float(sum(p["mse"] for p in parts) / sum(p["bce"] for p in parts))


def measured_alpha(
    network: nn.Module,
    variables: dict[str, Any],
    task: Task,
    data: TrainingData,
    settings: TrainSettings,
    run: RunSettings,
) -> float:
    """The alpha that `loop.train` would begin with, given the same, where it is `auto`."""
    mesh = data_mesh()
    return initial_ratio(
        make_train_step(network, task.kind, settings, run.augmentation),
        create_state(variables, settings, mesh, loss_parameters(task), seed=run.seed),
        data.batches,
        batch_placer(mesh, data.resident),
        num_batches=run.loss.alpha_batches,
    )
