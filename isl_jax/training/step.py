"""The compiled steps: one update, one evaluation."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from isl_jax.training.objectives import objective_loss
from isl_jax.training.optimizer import OptimizerSettings, make_optimizer
from isl_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
Batch = Mapping[str, jax.Array]


@functools.lru_cache(maxsize=16)
def make_train_step(
    network: nn.Module, target: str, optimizer_settings: OptimizerSettings
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Compile-once update `(state, batch) -> (state, metrics)`; the state's memory is reused.

    A batch holds `image` `[B, H, W, C]`, `target` `[B, H, W, K]` and `weight` `[B, H, W, 1]`.
    `target` is `Objective.target`. Losses and metrics are float32 whatever the network computes in.
    Cached by its settings: runs that differ only in seed, data or `LossParameters` share one
    compilation.
    """
    optimizer = make_optimizer(optimizer_settings)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        def loss_of(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
            outputs, updates = network.apply(
                {"params": params, "batch_stats": state.batch_stats},
                batch["image"],
                train=True,
                mutable=["batch_stats"],
            )
            loss, metrics = objective_loss(
                target,
                outputs.astype(jnp.float32),
                batch["target"],
                batch["weight"],
                state.loss_parameters,
            )
            return loss, (metrics, updates["batch_stats"])

        grads, (metrics, batch_stats) = jax.grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics["grad_norm"] = optax.tree.norm(grads)
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return state, metrics

    return jax.jit(train_step, donate_argnums=0)


@functools.lru_cache(maxsize=16)
def make_loss_step(network: nn.Module, target: str) -> Callable[[TrainState, Batch], Metrics]:
    """Compile-once validation loss of a batch, normalised with the running statistics."""

    def loss_step(state: TrainState, batch: Batch) -> Metrics:
        outputs = network.apply(state.variables, batch["image"], train=False)
        outputs = jnp.asarray(outputs, jnp.float32)
        return objective_loss(
            target, outputs, batch["target"], batch["weight"], state.loss_parameters
        )[1]

    return jax.jit(loss_step)
