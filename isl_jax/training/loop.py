"""The training loop: batches in, a trained state out; survives interruption."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from isl_jax.files import explained
from isl_jax.task import Task
from isl_jax.training.alpha import initial_ratio
from isl_jax.training.checkpoint import Checkpoints
from isl_jax.training.devices import (
    HostBatch,
    TrainingData,
    batch_placer,
    check_batch_size,
    check_devices,
    data_mesh,
    in_any_process,
    replicate,
    shard_whole_batch,
)
from isl_jax.training.failure import fail
from isl_jax.training.losses import loss_parameters
from isl_jax.training.optimizer import check_rates
from isl_jax.training.progress import Progress, panel
from isl_jax.training.settings import RunSettings, TrainSettings
from isl_jax.training.step import (
    Batch,
    Metrics,
    TrainState,
    create_state,
    make_evaluation_step,
    make_train_step,
)
from isl_jax.training.stopping import BestScore, InterruptedTrainingError, StopRequest

Variables = dict[str, Any]
SaveModel = Callable[[Variables, dict[str, Any]], None]


def check_training(settings: TrainSettings, variables: Variables) -> None:
    """Raise ValueError for settings that do not fit the devices or the network; write nothing."""
    mesh = data_mesh()
    check_devices(mesh)
    check_batch_size(settings.batch_size, mesh)
    check_rates(settings, variables["params"])
    assert settings.num_steps, "the length depends on the crops: see TrainSettings.with_length"


def train(
    network: nn.Module,
    variables: Variables,
    task: Task,
    data: TrainingData,
    settings: TrainSettings,
    run: RunSettings,
    *,
    workdir: Path,
    save_model: SaveModel,
) -> None:
    """Train `network` from `variables` for `settings.num_steps` steps.

    Resumes from `workdir/checkpoints` if there is one, whatever `variables` are.
    `save_model(variables, summary)` gets host arrays whenever the kept model changes, in the first
    process only. Progress goes to the terminal, `workdir/metrics.jsonl` and the writers of `run`.

    Raises InterruptedTrainingError after SIGTERM or SIGINT, once a checkpoint is saved;
    FloatingPointError when a loss or gradient is not finite, once the step is saved in
    `workdir/failed_step`; OSError when the disk is full; ValueError for a checkpoint of another
    network and for what `check_training` refuses.
    """
    check_training(settings, variables)
    with (
        Checkpoints(workdir) as checkpoints,
        StopRequest() as stop,
        Progress(workdir, settings, run, start_step=checkpoints.latest_step or 0) as progress,
    ):
        training = _Training(network, task, data, settings, run, workdir, progress)
        training.begin(variables, checkpoints)
        training.run(checkpoints, stop, save_model)


class _Training:
    """A training under way: its state, the best score, and what is still on the device."""

    state: TrainState

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        data: TrainingData,
        settings: TrainSettings,
        run: RunSettings,
        workdir: Path,
        progress: Progress,
    ) -> None:
        self.task, self.batches, self.validation = task, data.batches, data.validation
        self.settings, self.seed, self.loss = settings, run.seed, run.loss
        self.workdir, self.progress, self.mesh = workdir, progress, data_mesh()
        self.place = batch_placer(self.mesh, data.resident)
        self.make_step = functools.partial(
            make_train_step, network, task.kind, settings, run.augmentation
        )
        self.train_step = self.make_step()
        self.evaluation_step = make_evaluation_step(network, task.kind)
        self.best = BestScore(settings.patience, settings.patience_from)
        # The last step's batch and metrics, which have not been looked at yet.
        self.pending: tuple[Batch, Metrics] | None = None
        self.step = 0

    def begin(self, variables: Variables, checkpoints: Checkpoints) -> None:
        """Start from the newest checkpoint, or from `variables`."""
        parameters = loss_parameters(self.task)
        state = create_state(variables, self.settings, self.mesh, parameters, seed=self.seed)
        if checkpoints.latest_step is None:
            parameters = loss_parameters(self.task, self._initial_alpha(state))
            parameters = replicate(jax.tree.map(np.float32, parameters), self.mesh)
            self.state = dataclasses.replace(state, loss_parameters=parameters)
            return
        self.state, position = checkpoints.restore(state)
        self.batches.set_state(position["loader"])
        self.best.set_state(position["best"])
        self.step = int(self.state.step)

    def _initial_alpha(self, state: TrainState) -> float:
        """Alpha of eq. (2): as given, or the initial ratio of MSE to BCE (section 2.3)."""
        if not self.task.has_distance:
            return 1.0
        if self.loss.alpha != "auto":
            return float(self.loss.alpha)

        def measured(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            with self.progress.compiling(self.train_step):
                return self.train_step(state, batch)

        count = self.loss.alpha_batches
        return initial_ratio(measured, state, self.batches, self.place, num_batches=count)

    def run(self, checkpoints: Checkpoints, stop: StopRequest, save_model: SaveModel) -> None:
        """Take steps until the budget is spent or nothing is learnt any more."""
        settings, progress, num_steps = self.settings, self.progress, self.settings.num_steps
        if settings.patience and self.validation is None:
            progress.note("train.patience has no effect: there is no validation set")
        saved_at, ran = time.monotonic(), self.step < num_steps
        while self.step < num_steps and not self.best.exhausted:
            self._dispatch()
            is_last = self.step == num_steps
            validates = self.step % settings.validate_every == 0 or is_last
            overdue = 0 < settings.checkpoint_minutes <= (time.monotonic() - saved_at) / 60
            stops, overdue = self._agree(stop.requested, overdue)
            saves = self.step % settings.checkpoint_every == 0 or overdue or is_last or stops
            if (validates and self.validation is not None) or saves:
                self._settle()  # nothing that is not finite gets validated or saved
                progress.pace.pause()
            if validates and self.validation is not None:
                loss = self._validate(self.validation())
                if self.best.update(self.step, loss) and settings.keep == "best":
                    self._keep_model(save_model, loss)
            if saves or self.best.exhausted:
                position = {"loader": self.batches.get_state(), "best": self.best.get_state()}
                checkpoints.save(self.state, position)
                saved_at = time.monotonic()
            if stops and not is_last:
                raise InterruptedTrainingError(
                    f"stopped at step {self.step}; the same command resumes there"
                )
        if self.best.exhausted and self.step < num_steps:
            told = f"stopped earlier, at step {self.step} of {num_steps}"
            progress.note(f"{told}, as the model was not learning: {self.best}")
        if ran:
            progress.finish(self.step)
        if settings.keep == "last" or self.best.loss is None:
            self._keep_model(save_model, None)

    def _keep_model(self, save_model: SaveModel, loss: float | None) -> None:
        summary = {
            "step": self.step,
            "validation_loss": loss,
            "alpha": float(self.state.loss_parameters.alpha),
            "throughput": self.progress.summary(),
        }
        kept = jax.tree.map(np.asarray, jax.device_get(self.state).variables)
        if jax.process_index() == 0:
            with explained(self.workdir / "model"):
                save_model(kept, summary)

    def _agree(self, *flags: bool) -> tuple[bool, ...]:
        """What all processes do together: they ask each other now and then, one need not."""
        asks = jax.process_count() == 1 or self.step % self.settings.log_every == 0
        return in_any_process(*flags) if asks else (False,) * len(flags)

    def _dispatch(self) -> None:
        """Start the next step, and look at the metrics of the one before."""
        progress = self.progress
        if progress.profiler.starts(self.step + 1):
            self._settle()
            progress.profiler.start()
        asked = time.perf_counter()
        batch = self.place(next(self.batches))
        # Loading counts as waiting only if the device has nothing left to do.
        is_idle = self.pending is None or all(
            leaf.is_ready() for leaf in jax.tree.leaves(self.pending[1])
        )
        progress.pace.count((time.perf_counter() - asked) if is_idle else 0.0)
        # Every array must be where the step wants it: a hidden copy would cost time at each step.
        with progress.compiling(self.train_step), jax.transfer_guard("disallow"):
            self.state, metrics = self.train_step(self.state, batch)
        # One step late: waiting for this step's own metrics would leave the device idle.
        self._settle()
        self.pending, self.step = (batch, metrics), self.step + 1
        if progress.profiler.ends(self.step):
            self._settle()
            progress.profiler.close()
        if progress.pace.is_paused:
            self._settle()  # compiling or validation is over: training time counts again
            progress.pace.start()

    def _settle(self) -> None:
        """Report the metrics that are still on the device; stop at one that is not finite."""
        if self.pending is None:
            return
        (batch, metrics), self.pending = self.pending, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not all(map(math.isfinite, values.values())):
            unguarded = self.make_step(guarded=False)
            fail(self.workdir, self.step, values, self.state, batch, unguarded)
        self.progress.report(self.step, values)

    def _validate(self, batches: Iterator[HostBatch]) -> float:
        """Mean loss over the batches, each counted by the crops in it that are not padding."""
        total, count, pictures = 0.0, 0.0, None
        for batch in batches:
            crops = float(np.any(batch["weight"] > 0, axis=(1, 2, 3)).sum())
            metrics, outputs = self.evaluation_step(self.state, shard_whole_batch(batch, self.mesh))
            total += crops * float(metrics["loss"])
            count += crops
            if pictures is None and outputs.is_fully_addressable:
                pictures = panel(batch, np.asarray(outputs), self.task)
        loss = total / max(count, 1.0)
        self.progress.validation(self.step, loss, pictures)
        return loss
