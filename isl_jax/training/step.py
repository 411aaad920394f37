"""The state of a training, and the compiled steps: one update, one evaluation."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from isl_jax.task import Kind
from isl_jax.training.augmentation import NO_AUGMENTATION, Augmentation, augment
from isl_jax.training.devices import replicate, replicated
from isl_jax.training.losses import LossParameters, task_loss
from isl_jax.training.optimizer import make_optimizer
from isl_jax.training.packing import Packing
from isl_jax.training.settings import TrainSettings

Metrics = dict[str, jax.Array]
Batch = Mapping[str, jax.Array]


@flax.struct.dataclass
class TrainState:
    """All that one step changes, and what it needs beside the batch.

    `params` and `batch_stats`, and the optimiser's moments, are vectors float32 that `packings`
    tell apart; `named` has their arrays by name. The parameters of the loss ride along because
    `alpha="auto"` measures one on the first batches: a resumed run must keep the value that the run
    began with. So does the seed of the augmentation. `finite` is false once a step had to be
    refused.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    loss_parameters: LossParameters
    seed: jax.Array
    finite: jax.Array
    packings: tuple[Packing, Packing] = flax.struct.field(pytree_node=False)

    @property
    def variables(self) -> dict[str, Any]:
        """Flax variables of the network."""
        params, batch_stats = self.packings
        return {
            "params": params.split(self.params),
            "batch_stats": batch_stats.split(self.batch_stats),
        }

    def named(self) -> "TrainState":
        """With a tree of arrays for every vector, as files name them."""
        return dataclasses.replace(
            self, **self.variables, opt_state=self.packings[0].split_within(self.opt_state)
        )

    def joined(self) -> "TrainState":
        """The inverse of `named`."""
        params, batch_stats = self.packings
        return dataclasses.replace(
            self,
            params=params.join(self.params),
            batch_stats=batch_stats.join(self.batch_stats),
            opt_state=params.join_within(self.opt_state),
        )


def create_state(
    variables: dict[str, Any],
    settings: TrainSettings,
    mesh: Mesh,
    loss_parameters: LossParameters,
    *,
    seed: int = 0,
) -> TrainState:
    """Replicate host `variables` over the mesh and start the optimiser there."""
    packings = Packing.of(variables["params"]), Packing.of(variables["batch_stats"])
    params, batch_stats = replicate(
        (packings[0].join(variables["params"]), packings[1].join(variables["batch_stats"])), mesh
    )
    start = jax.jit(make_optimizer(settings, packings[0]).init, out_shardings=replicated(mesh))
    return TrainState(
        step=replicate(np.zeros((), np.int32), mesh),
        params=params,
        batch_stats=batch_stats,
        opt_state=start(params),
        loss_parameters=replicate(jax.tree.map(np.float32, loss_parameters), mesh),
        seed=replicate(np.asarray(seed % 2**32, np.uint32), mesh),
        finite=replicate(np.asarray(True), mesh),
        packings=packings,
    )


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@functools.lru_cache(maxsize=16)
def make_train_step(
    network: nn.Module,
    kind: Kind,
    settings: TrainSettings,
    augmentation: Augmentation = NO_AUGMENTATION,
    *,
    guarded: bool = True,
) -> TrainStep:
    """Compile-once update `(state, batch) -> (state, metrics)`; the state's memory is reused.

    A batch holds `image` `[B, H, W, C]`, `target` `[B, H, W, K]` and `weight` `[B, H, W, 1]`.
    Losses and metrics are float32 whatever the network computes in. `guarded`: a step whose loss or
    gradient is not finite changes nothing but `state.finite`, and no later step changes anything.

    Cached by its settings: runs that differ only in seed, data or `LossParameters` share one
    compilation.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if augmentation:
            key = jax.random.fold_in(jax.random.key(state.seed), state.step)
            batch = augment(key, batch, augmentation)

        packing, packing_of_statistics = state.packings
        variables = state.variables

        def loss_of(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
            outputs, updates = network.apply(
                {**variables, "params": params},
                batch["image"],
                train=True,
                mutable=["batch_stats"],
            )
            loss, metrics = task_loss(
                kind,
                outputs.astype(jnp.float32),
                batch["target"],
                batch["weight"],
                state.loss_parameters,
            )
            return loss, (metrics, updates["batch_stats"])

        tree, (metrics, batch_stats) = jax.grad(loss_of, has_aux=True)(variables["params"])
        grads = packing.join(tree)
        optimizer = make_optimizer(settings, packing)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics["grad_norm"] = optax.tree.norm(grads)
        updated = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=packing_of_statistics.join(batch_stats),
            opt_state=opt_state,
        )
        if guarded:
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
            finite &= state.finite
            updated = jax.tree.map(functools.partial(jnp.where, finite), updated, state)
            updated = dataclasses.replace(updated, finite=finite)
        return updated, metrics

    return jax.jit(train_step, donate_argnums=0)


@functools.lru_cache(maxsize=16)
def make_evaluation_step(
    network: nn.Module, kind: Kind
) -> Callable[[TrainState, Batch], tuple[Metrics, jax.Array]]:
    """Compile-once validation of a batch, normalised with the running statistics.

    Returns the losses and the network's float32 output `[B, H, W, K]`.
    """

    def evaluation_step(state: TrainState, batch: Batch) -> tuple[Metrics, jax.Array]:
        outputs = network.apply(state.variables, batch["image"], train=False)
        outputs = jnp.asarray(outputs, jnp.float32)
        _, metrics = task_loss(
            kind, outputs, batch["target"], batch["weight"], state.loss_parameters
        )
        return metrics, outputs

    return jax.jit(evaluation_step)
