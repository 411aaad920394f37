"""The training loop: batches in, a trained state out; survives interruption."""

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from isl_jax.training.checkpoint import Checkpoints
from isl_jax.training.objectives import Objective
from isl_jax.training.optimizer import OptimizerSettings, make_optimizer
from isl_jax.training.sharding import check_batch_size, data_mesh, replicate, shard_batch
from isl_jax.training.state import TrainState, create_state
from isl_jax.training.step import make_loss_step, make_train_step
from isl_jax.training.writer import MetricsWriter

HostBatch = Mapping[str, np.ndarray]
Variables = dict[str, Any]


class BatchIterator(Protocol):
    """Endless batches whose position can be saved and set (grain's iterators are such)."""

    def __next__(self) -> HostBatch: ...
    def get_state(self) -> dict[str, Any]: ...  # noqa: D102
    def set_state(self, state: dict[str, Any]) -> None: ...  # noqa: D102


class InterruptedTrainingError(RuntimeError):
    """The run was told to stop (SIGTERM, SIGINT) and has saved a checkpoint to resume from."""


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How long and how often. Steps count optimiser updates.

    `batch_size` is global. `alpha` of eq. (2) is a number or `auto`: the ratio of MSE to BCE over
    the first `alpha_batches` batches of the untrained network. `keep`: `best` keeps the variables
    with the lowest validation loss (without a validation set, the last), `last` those of the last
    step. `keep_checkpoints` is the number of checkpoints that stay on disk.
    """

    batch_size: int
    optimizer: OptimizerSettings
    checkpoint_every: int = 1000
    validate_every: int = 500
    log_every: int = 10
    keep: str = "best"
    keep_checkpoints: int = 2
    alpha: str | float = "auto"
    alpha_batches: int = 8

    def __post_init__(self) -> None:
        if self.keep not in ("best", "last"):
            raise ValueError(f"unknown train.keep={self.keep!r}: choose best or last")
        if self.alpha != "auto":
            try:
                float(self.alpha)
            except ValueError:
                raise ValueError(
                    f"loss alpha={self.alpha!r} is neither a number nor auto"
                ) from None


class _StopRequest:
    """Turns SIGTERM and SIGINT into a flag while the loop runs (main thread only)."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "_StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: object) -> None:
        self.requested = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class _Throughput:
    """Images per second and the share of time spent waiting for data, between two readings.

    Restarted after everything that is not training (compilation, validation).
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.restart()

    def restart(self) -> None:
        self._started, self._waited, self._steps = time.perf_counter(), 0.0, 0

    def waited(self, seconds: float) -> None:
        self._waited += seconds
        self._steps += 1

    def read(self) -> dict[str, float]:
        elapsed = time.perf_counter() - self._started
        reading = {
            "images_per_second": self._steps * self._batch_size / max(elapsed, 1e-9),
            "data_wait": self._waited / max(elapsed, 1e-9),
        }
        self.restart()
        return reading


def _finite(step: int, metrics: Mapping[str, jax.Array]) -> dict[str, float]:
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    if not all(math.isfinite(value) for value in values.values()):
        raise FloatingPointError(
            f"step {step}: the loss or its gradient is no longer finite ({values}); "
            "lower train.learning_rate or set train.clip_norm"
        )
    return values


def _validation_loss(
    loss_step: Callable[..., Mapping[str, jax.Array]],
    state: TrainState,
    batches: Iterator[HostBatch],
    mesh: jax.sharding.Mesh,
) -> float:
    """Mean loss over the batches, each counted by the crops in it that are not padding."""
    total = count = 0.0
    for batch in batches:
        crops = float(np.any(batch["weight"] > 0, axis=(1, 2, 3)).sum())
        total += crops * float(loss_step(state, shard_batch(batch, mesh))["loss"])
        count += crops
    return total / max(count, 1.0)


def _initial_alpha(
    train_step: Callable[..., tuple[TrainState, Mapping[str, jax.Array]]],
    objective: Objective,
    state: TrainState,
    batches: BatchIterator,
    settings: TrainSettings,
) -> float:
    """Alpha of eq. (2): as given, or the initial ratio of MSE to BCE (section 2.3)."""
    if objective.target != "distance_and_semantic":
        return 1.0
    if settings.alpha != "auto":
        return float(settings.alpha)
    mesh = data_mesh()
    position = batches.get_state()
    # The training step itself on copies that are thrown away: a step that only measures would have
    # to be compiled for these few batches.
    parts = [
        train_step(jax.tree.map(jnp.copy, state), shard_batch(next(batches), mesh))[1]
        for _ in range(settings.alpha_batches)
    ]
    batches.set_state(position)  # measuring must not change what the run trains on
    return float(sum(p["mse"] for p in parts) / sum(p["bce"] for p in parts))


def train(
    network: nn.Module,
    variables: Variables,
    objective: Objective,
    batches: BatchIterator,
    *,
    settings: TrainSettings,
    workdir: Path,
    save_model: Callable[[Variables, dict[str, float]], None],
    validation: Callable[[], Iterator[HostBatch]] | None = None,
    description: str = "training",
) -> None:
    """Train `network` from `variables` for `settings.optimizer.num_steps` steps.

    Resumes from `workdir/checkpoints` if there is one, whatever `variables` are. `batches` yields
    this process's share of host batches: `image` `[B, H, W, C]`, `target` `[B, H, W, K]` and
    `weight` `[B, H, W, 1]`, float32; `validation()` starts a pass over the validation set.
    `save_model(variables, summary)` gets host arrays whenever the kept model changes. Progress goes
    to the terminal and `workdir/metrics.jsonl`.

    Raises InterruptedTrainingError after SIGTERM or SIGINT, once a checkpoint is saved;
    FloatingPointError when the loss is no longer finite; ValueError for a checkpoint of another
    network.
    """
    mesh = data_mesh()
    check_batch_size(settings.batch_size, mesh)
    train_step = make_train_step(network, objective.target, settings.optimizer)
    loss_step = make_loss_step(network, objective.target)
    optimizer = make_optimizer(settings.optimizer)
    state = create_state(variables, optimizer, mesh, objective.loss_parameters())
    num_steps = settings.optimizer.num_steps
    best_loss: float | None = None
    with (
        Checkpoints(workdir / "checkpoints", keep=settings.keep_checkpoints) as checkpoints,
        _StopRequest() as stop,
    ):
        if checkpoints.latest_step is not None:
            state, position = checkpoints.restore(state)
            batches.set_state(position["loader"])
            best_loss = position["best_loss"]
        else:
            alpha = _initial_alpha(train_step, objective, state, batches, settings)
            parameters = jax.tree.map(np.float32, objective.loss_parameters(alpha))
            state = dataclasses.replace(state, loss_parameters=replicate(parameters, mesh))
        start = step = int(state.step)
        throughput = _Throughput(settings.batch_size)
        pending: Mapping[str, jax.Array] | None = None  # metrics of the last step dispatched

        def save_checkpoint() -> None:
            checkpoints.save(state, {"loader": batches.get_state(), "best_loss": best_loss})

        def keep_model(loss: float | None) -> None:
            summary = {
                "step": step,
                "validation_loss": loss,
                "alpha": float(state.loss_parameters.alpha),
            }
            save_model(jax.tree.map(np.asarray, jax.device_get(state.variables)), summary)

        with MetricsWriter(
            workdir, start_step=start, num_steps=num_steps, description=description
        ) as writer:

            def report(at: int, metrics: Mapping[str, jax.Array]) -> None:
                values = _finite(at, metrics)
                if at == start + 1:
                    throughput.restart()  # compiling is not training
                if at % settings.log_every == 0 or at == num_steps:
                    measured = throughput.read() if at > start + 1 else {}
                    writer.write(at, "train", values | measured)
                writer.progress(at, values["loss"])

            def validate() -> None:
                nonlocal best_loss
                if validation is None:
                    return
                loss = _validation_loss(loss_step, state, validation(), mesh)
                writer.write(step, "validation", {"loss": loss})
                if settings.keep == "best" and (best_loss is None or loss < best_loss):
                    best_loss = loss
                    keep_model(loss)
                throughput.restart()

            while step < num_steps:
                asked = time.perf_counter()
                batch = next(batches)
                throughput.waited(time.perf_counter() - asked)
                state, metrics = train_step(state, shard_batch(batch, mesh))
                if pending is not None:
                    # One step late: waiting for this step's own would leave the device idle.
                    report(step, pending)
                step += 1
                pending = metrics
                is_last = step == num_steps
                validates = step % settings.validate_every == 0 or is_last
                saves = step % settings.checkpoint_every == 0 or is_last or stop.requested
                if validates or saves:
                    report(step, pending)  # nothing that is not finite gets validated or saved
                    pending = None
                if validates:
                    validate()
                if saves:
                    save_checkpoint()
                if stop.requested and not is_last:
                    raise InterruptedTrainingError(
                        f"stopped at step {step}; the same command resumes there"
                    )
        if settings.keep == "last" or best_loss is None:
            keep_model(None)
