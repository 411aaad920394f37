"""The training loop: batches in, a trained state out; survives interruption."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from isl_jax.training import disk
from isl_jax.training.checkpoint import Checkpoints
from isl_jax.training.devices import (
    check_batch_size,
    data_mesh,
    in_any_process,
    replicate,
    shard_whole_batch,
)
from isl_jax.training.failure import save_failed_step
from isl_jax.training.objectives import Objective
from isl_jax.training.optimizer import check_rates, make_optimizer
from isl_jax.training.panel import panel
from isl_jax.training.placement import HostBatch, batch_placer
from isl_jax.training.progress import Progress
from isl_jax.training.settings import TrainSettings
from isl_jax.training.state import TrainState, create_state
from isl_jax.training.step import TrainStep, make_evaluation_step, make_train_step
from isl_jax.training.stopping import BestScore, InterruptedTrainingError, StopRequest

Variables = dict[str, Any]


class BatchIterator(Protocol):
    """Endless batches whose position can be saved and set (grain's iterators are such)."""

    def __next__(self) -> HostBatch: ...
    def get_state(self) -> dict[str, Any]: ...  # noqa: D102
    def set_state(self, state: dict[str, Any]) -> None: ...  # noqa: D102


def train(
    network: nn.Module,
    variables: Variables,
    objective: Objective,
    batches: BatchIterator,
    *,
    settings: TrainSettings,
    workdir: Path,
    save_model: Callable[[Variables, dict[str, Any]], None],
    resident: HostBatch | None = None,
    validation: Callable[[], Iterator[HostBatch]] | None = None,
    description: str = "training",
) -> None:
    """Train `network` from `variables` for `settings.optimizer.num_steps` steps.

    Resumes from `workdir/checkpoints` if there is one, whatever `variables` are. `batches` yields
    this process's share of host batches: `image` `[B, H, W, C]`, `target` `[B, H, W, K]` and
    `weight` `[B, H, W, 1]`, float32. With `resident`, the same three of all crops `[N, …]`, the
    devices hold these and `batches` yields `{"index": [B]}`. `validation()` starts a pass over the
    validation set, the same in every process. `save_model(variables, summary)` gets host arrays
    whenever the kept model changes, in the first process only. Progress goes to the terminal,
    `workdir/metrics.jsonl` and the writers of the settings.

    Raises InterruptedTrainingError after SIGTERM or SIGINT, once a checkpoint is saved;
    FloatingPointError when a loss or gradient is not finite, once the step is saved in
    `workdir/failed_step`; OSError when the disk is full; ValueError for a checkpoint of another
    network and for settings that do not fit the devices or the network.
    """
    mesh = data_mesh()
    check_batch_size(settings.batch_size, mesh)
    check_rates(settings.optimizer, variables["params"])
    with (
        Checkpoints(workdir / "checkpoints", keep=settings.keep_checkpoints) as checkpoints,
        StopRequest() as stop,
        Progress(
            workdir,
            settings,
            start_step=checkpoints.latest_step or 0,
            description=description,
        ) as progress,
    ):
        training = _Training(network, objective, batches, settings, workdir, mesh, progress)
        training.begin(variables, checkpoints, resident)
        training.run(checkpoints, stop, validation, save_model)


@dataclasses.dataclass
class _Call:
    """A call of the training step whose metrics have not been looked at yet."""

    first_step: int
    batch: Mapping[str, jax.Array]
    metrics: Mapping[str, jax.Array]

    @property
    def is_done(self) -> bool:
        return all(leaf.is_ready() for leaf in jax.tree.leaves(self.metrics))


class _Training:
    """A training under way: its state, the best score, and what is still on the device."""

    state: TrainState

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        batches: BatchIterator,
        settings: TrainSettings,
        workdir: Path,
        mesh: Mesh,
        progress: Progress,
    ) -> None:
        self.objective, self.batches, self.settings = objective, batches, settings
        self.workdir, self.mesh, self.progress = workdir, mesh, progress

        def make_step(*, steps_per_call: int = 1, guarded: bool = True) -> TrainStep:
            # Always the same arguments: they are what compiled steps are remembered by.
            return make_train_step(
                network,
                objective.target,
                settings.optimizer,
                settings.augmentation,
                steps_per_call=steps_per_call,
                guarded=guarded,
            )

        self.make_step = make_step
        self.train_step = make_step(steps_per_call=settings.steps_per_call)
        self.evaluation_step = make_evaluation_step(network, objective.target)
        self.best = BestScore(settings.patience, settings.patience_from)
        self.pending: _Call | None = None
        self.step = 0

    def begin(
        self, variables: Variables, checkpoints: Checkpoints, resident: HostBatch | None
    ) -> None:
        """Start from the newest checkpoint, or from `variables`."""
        settings, objective = self.settings, self.objective
        optimizer = make_optimizer(settings.optimizer)
        parameters = objective.loss_parameters()
        state = create_state(variables, optimizer, self.mesh, parameters, seed=settings.seed)
        self.place = batch_placer(self.mesh, resident)
        if checkpoints.latest_step is None:
            parameters = objective.loss_parameters(self._initial_alpha(state))
            parameters = replicate(jax.tree.map(np.float32, parameters), self.mesh)
            self.state = dataclasses.replace(state, loss_parameters=parameters)
            return
        self.state, position = checkpoints.restore(state)
        self.batches.set_state(position["loader"])
        self.best.set_state(position["best"])
        self.step = int(self.state.step)

    def _initial_alpha(self, state: TrainState) -> float:
        """Alpha of eq. (2): as given, or the initial ratio of MSE to BCE (section 2.3)."""
        settings = self.settings
        if self.objective.target != "distance_and_semantic":
            return 1.0
        if settings.alpha != "auto":
            return float(settings.alpha)
        position = self.batches.get_state()
        # The training step itself on copies that are thrown away: a step that only measures would
        # have to be compiled for these few batches.
        step, parts = self.make_step(), []
        for _ in range(settings.alpha_batches):
            copied, batch = jax.tree.map(jnp.copy, state), self.place([next(self.batches)])
            with self.progress.compiling(step):
                parts.append(step(copied, batch)[1])
        self.batches.set_state(position)  # measuring must not change what the run trains on
        return float(sum(p["mse"] for p in parts) / sum(p["bce"] for p in parts))

    def run(
        self,
        checkpoints: Checkpoints,
        stop: StopRequest,
        validation: Callable[[], Iterator[HostBatch]] | None,
        save_model: Callable[[Variables, dict[str, Any]], None],
    ) -> None:
        """Take steps until the budget is spent or nothing is learnt any more."""
        settings, progress = self.settings, self.progress
        num_steps = settings.optimizer.num_steps
        if settings.patience and validation is None:
            progress.note("train.patience has no effect: there is no validation set")
        saved_at, ran = time.monotonic(), self.step < num_steps

        def keep_model(loss: float | None) -> None:
            summary = {
                "step": self.step,
                "validation_loss": loss,
                "alpha": float(self.state.loss_parameters.alpha),
                "throughput": progress.summary(),
            }
            kept = jax.tree.map(np.asarray, jax.device_get(self.state.variables))
            if jax.process_index() == 0:
                with disk.explained(self.workdir / "model"):
                    save_model(kept, summary)

        while self.step < num_steps and not self.best.exhausted:
            self._dispatch()
            is_last = self.step == num_steps
            validates = validation is not None and (
                self.step % settings.validate_every == 0 or is_last
            )
            minutes = (time.monotonic() - saved_at) / 60
            overdue = 0 < settings.checkpoint_minutes <= minutes
            stops, overdue = self._agree(stop.requested), self._agree(overdue)
            saves = self.step % settings.checkpoint_every == 0 or overdue or is_last or stops
            if validates or saves:
                self._settle()  # nothing that is not finite gets validated or saved
                progress.pace.pause()
            if validation is not None and validates:
                loss = self._validate(validation())
                if self.best.update(self.step, loss) and settings.keep == "best":
                    keep_model(loss)
            if saves or self.best.exhausted:
                checkpoints.save(
                    self.state, {"loader": self.batches.get_state(), "best": self.best.get_state()}
                )
                saved_at = time.monotonic()
            if stops and not is_last:
                raise InterruptedTrainingError(
                    f"stopped at step {self.step}; the same command resumes there"
                )
        if self.best.exhausted and self.step < num_steps:
            progress.note(
                f"stopped earlier, at step {self.step} of {num_steps}, as the model was not "
                f"learning: {self.best.misses} validations in a row found no loss below "
                f"{self.best.loss:.4g}, that of step {self.best.step}"
            )
        if ran:
            progress.finish(self.step)
        if settings.keep == "last" or self.best.loss is None:
            keep_model(None)

    def _agree(self, flag: bool) -> bool:
        """What all processes do together: they ask each other now and then, one need not."""
        every = self.settings.log_every
        if jax.process_count() > 1 and self.step // every == self._before // every:
            return False
        return in_any_process(flag)

    def _dispatch(self) -> None:
        """Start the next step, or several, and look at the metrics of those before."""
        count, progress = self.settings.steps_per_call, self.progress
        if progress.profiler.starts(self.step + 1):
            self._settle()
            progress.profiler.start()
        asked = time.perf_counter()
        batch = self.place([next(self.batches) for _ in range(count)])
        # Loading counts as waiting only if the device has nothing left to do.
        is_idle = self.pending is None or self.pending.is_done
        progress.pace.count(count, (time.perf_counter() - asked) if is_idle else 0.0)
        # Every array must be where the step wants it: a hidden copy would cost time at each step.
        with progress.compiling(self.train_step), jax.transfer_guard("disallow"):
            self.state, metrics = self.train_step(self.state, batch)
        call = _Call(self.step + 1, batch, metrics)
        # One call late: waiting for this step's own metrics would leave the device idle.
        self._settle()
        self.pending, self._before, self.step = call, self.step, self.step + count
        if progress.profiler.ends(self.step):
            self._settle()
            progress.profiler.close()
        if progress.pace.is_paused:
            self._settle()  # compiling or validation is over: training time counts again
            progress.pace.start()

    def _settle(self) -> None:
        """Report the metrics that are still on the device; stop at one that is not finite."""
        call, self.pending = self.pending, None
        if call is None:
            return
        fetched = jax.device_get(call.metrics)
        for index in range(self.settings.steps_per_call):
            step = call.first_step + index
            values = {name: float(np.ravel(array)[index]) for name, array in fetched.items()}
            if not all(map(math.isfinite, values.values())):
                batch = call.batch
                if self.settings.steps_per_call > 1:
                    batch = {name: array[index] for name, array in batch.items()}
                unguarded = self.make_step(guarded=False)
                folder = save_failed_step(self.workdir, self.state, batch, unguarded)
                raise FloatingPointError(
                    f"step {step}: the loss or its gradient is no longer finite ({values}); the "
                    f"state before and after it and its batch are in {folder}; lower "
                    "train.learning_rate or set train.clip_norm"
                )
            self.progress.report(step, values)

    def _validate(self, batches: Iterator[HostBatch]) -> float:
        """Mean loss over the batches, each counted by the crops in it that are not padding."""
        total = count = 0.0
        pictures = None
        for batch in batches:
            crops = float(np.any(batch["weight"] > 0, axis=(1, 2, 3)).sum())
            metrics, outputs = self.evaluation_step(self.state, shard_whole_batch(batch, self.mesh))
            total += crops * float(metrics["loss"])
            count += crops
            if pictures is None and outputs.is_fully_addressable:
                pictures = panel(batch, np.asarray(outputs), self.objective)
        loss = total / max(count, 1.0)
        self.progress.validation(self.step, loss, pictures)
        return loss
