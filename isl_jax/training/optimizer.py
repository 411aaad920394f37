"""Adam with the schedules that the studies use."""

import dataclasses
from typing import Any

import jax
import optax


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Adam's settings; hashable. `num_steps` is the length of the schedule.

    `schedule`: `constant` (the paper) or `cosine` (decay to 0 at the last step), both after
    `warmup_steps` of linear warm-up. `clip_norm` bounds the global gradient norm; 0 turns it off.
    `head_rate` multiplies the learning rate of the two convolutions after an ISL network: they
    alone start from nothing, and Adam moves a weight by no more than the learning rate a step.
    """

    num_steps: int
    learning_rate: float
    schedule: str = "constant"
    warmup_steps: int = 0
    b1: float = 0.9
    b2: float = 0.999
    clip_norm: float = 0.0
    head_rate: float = 1.0


def learning_rate_schedule(settings: OptimizerSettings) -> optax.Schedule:
    """Learning rate by step (0-based)."""
    peak, warmup = settings.learning_rate, settings.warmup_steps
    if settings.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(settings.num_steps - warmup, 1))
    elif settings.schedule == "constant":
        after = optax.constant_schedule(peak)
    else:
        raise ValueError(f"unknown schedule {settings.schedule!r}: choose constant or cosine")
    if not warmup:
        return after
    # Starts at peak / warmup, not at 0: a first step that changes nothing is a step lost.
    ramp = optax.linear_schedule(peak / warmup, peak, warmup - 1)
    return optax.join_schedules([ramp, after], [warmup])


def make_optimizer(settings: OptimizerSettings) -> optax.GradientTransformation:
    """Adam (eps 1e-8) under the settings' schedule, with optional gradient clipping."""
    parts: list[optax.GradientTransformation] = [
        optax.adam(learning_rate_schedule(settings), b1=settings.b1, b2=settings.b2)
    ]
    if settings.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(settings.clip_norm))
    if settings.head_rate != 1:
        parts.append(optax.masked(optax.scale(settings.head_rate), _in_head))
    return optax.chain(*parts)


def _in_head(params: Any) -> Any:
    return jax.tree.map_with_path(lambda path, _: path[0].key == "head", params)
