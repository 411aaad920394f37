"""The compiled steps: one update, one evaluation."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from isl_jax.training.augmentation import NO_AUGMENTATION, Augmentation, augment
from isl_jax.training.objectives import objective_loss
from isl_jax.training.optimizer import OptimizerSettings, make_optimizer
from isl_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
Batch = Mapping[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@functools.lru_cache(maxsize=16)
def make_train_step(
    network: nn.Module,
    target: str,
    optimizer_settings: OptimizerSettings,
    augmentation: Augmentation = NO_AUGMENTATION,
    *,
    steps_per_call: int = 1,
    guarded: bool = True,
) -> TrainStep:
    """Compile-once update `(state, batch) -> (state, metrics)`; the state's memory is reused.

    A batch holds `image` `[B, H, W, C]`, `target` `[B, H, W, K]` and `weight` `[B, H, W, 1]`.
    `target` is `Objective.target`. Losses and metrics are float32 whatever the network computes in.
    With several `steps_per_call` a batch has a leading axis of that length, and so have the
    metrics. `guarded`: a step whose loss or gradient is not finite changes nothing but
    `state.finite`, and no later step changes anything.

    Cached by its settings: runs that differ only in seed, data or `LossParameters` share one
    compilation.
    """
    optimizer = make_optimizer(optimizer_settings)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if augmentation:
            key = jax.random.fold_in(jax.random.key(state.seed), state.step)
            batch = augment(key, batch, augmentation)

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
        updated = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        if guarded:
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
            finite &= state.finite
            updated = jax.tree.map(functools.partial(jnp.where, finite), updated, state)
            updated = dataclasses.replace(updated, finite=finite)
        return updated, metrics

    if steps_per_call == 1:
        return jax.jit(train_step, donate_argnums=0)
    return jax.jit(functools.partial(jax.lax.scan, train_step), donate_argnums=0)


@functools.lru_cache(maxsize=16)
def make_evaluation_step(
    network: nn.Module, target: str
) -> Callable[[TrainState, Batch], tuple[Metrics, jax.Array]]:
    """Compile-once validation of a batch, normalised with the running statistics.

    Returns the losses and the network's float32 output `[B, H, W, K]`.
    """

    def evaluation_step(state: TrainState, batch: Batch) -> tuple[Metrics, jax.Array]:
        outputs = network.apply(state.variables, batch["image"], train=False)
        outputs = jnp.asarray(outputs, jnp.float32)
        _, metrics = objective_loss(
            target, outputs, batch["target"], batch["weight"], state.loss_parameters
        )
        return metrics, outputs

    return jax.jit(evaluation_step)
