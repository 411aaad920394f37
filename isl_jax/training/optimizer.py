"""Adam with the schedules that the studies use."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

Rates = tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Adam's settings; hashable. `num_steps` is the length of the schedule.

    `schedule`: `constant` (the paper) or `cosine` (decay to 0 at the last step), both after
    `warmup_steps` of linear warm-up. `clip_norm` bounds the global gradient norm; 0 turns it off.
    `rates` pairs regular expressions, searched for in the path of a parameter
    (`encoder/conv0/kernel`), with what its learning rate is multiplied by: the first that is found
    counts, 0 freezes. `head_rate` is that of the two convolutions after an ISL network: they alone
    start from nothing, and Adam moves a weight by no more than the learning rate a step.
    """

    num_steps: int
    learning_rate: float
    schedule: str = "constant"
    warmup_steps: int = 0
    b1: float = 0.9
    b2: float = 0.999
    clip_norm: float = 0.0
    head_rate: float = 1.0
    rates: Rates = ()


def parse_rates(text: str) -> Rates:
    """`encoder/=0.1; decoder/=0.5` as pairs; ValueError for what is none."""
    rates = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        pattern, _, value = part.rpartition("=")
        try:
            rates.append((re.compile(pattern).pattern, float(value)))
        except (re.error, ValueError) as error:
            raise ValueError(
                f"train.rates: {part!r} is not PATTERN=RATE, as encoder/=0.1 ({error})"
            ) from None
        if not pattern or rates[-1][1] < 0:
            raise ValueError(f"train.rates: {part!r} is not PATTERN=RATE with a rate of 0 or more")
    return tuple(rates)


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
    rates = (*settings.rates, ("^head/", settings.head_rate))
    if any(rate != 1 for _, rate in rates):
        parts.append(_scale_by_path(rates))
    return optax.chain(*parts)


def check_rates(settings: OptimizerSettings, params: Any) -> None:
    """Raise ValueError for a pattern of `rates` that no parameter's path holds."""
    paths = [_path(path) for path, _ in jax.tree.leaves_with_path(params)]
    for pattern, _ in settings.rates:
        if not any(re.search(pattern, path) for path in paths):
            raise ValueError(
                f"train.rates: {pattern!r} is found in no parameter; paths look like "
                f"{paths[0]} and {paths[-1]}"
            )


def _scale_by_path(rates: Rates) -> optax.GradientTransformation:
    def scale(path: tuple, update: jax.Array) -> jax.Array:
        name = _path(path)
        rate = next((rate for pattern, rate in rates if re.search(pattern, name)), 1.0)
        if rate == 1:
            return update
        return update * rate if rate else jnp.zeros_like(update)

    return optax.stateless(lambda updates, _: jax.tree.map_with_path(scale, updates))


def _path(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
