"""Adam with the schedules that the studies use."""

import itertools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from isl_jax.training.packing import Packing
from isl_jax.training.settings import Rates, TrainSettings


def learning_rate_schedule(settings: TrainSettings) -> optax.Schedule:
    """Learning rate by step (0-based): constant, or cosine decay to 0, after a linear warm-up."""
    peak, warmup = settings.learning_rate, settings.warmup_steps
    if settings.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(settings.num_steps - warmup, 1))
    else:
        after = optax.constant_schedule(peak)
    if not warmup:
        return after
    # Starts at peak / warmup, not at 0: a first step that changes nothing is a step lost.
    ramp = optax.linear_schedule(peak / warmup, peak, warmup - 1)
    return optax.join_schedules([ramp, after], [warmup])


def make_optimizer(settings: TrainSettings, packing: Packing) -> optax.GradientTransformation:
    """Adam (eps 1e-8) of a vector of `packing` by the settings' schedule, with optional clipping.

    Patterns of `rates` are searched for in the path of a parameter (`encoder/conv0/kernel`); the
    first that is found counts, a rate of 0 freezes. `head_rate` is that of the two convolutions
    after an ISL network: they alone start from nothing, and Adam moves a weight by no more than the
    learning rate a step.
    """
    parts: list[optax.GradientTransformation] = [
        optax.adam(learning_rate_schedule(settings), b1=settings.b1, b2=settings.b2)
    ]
    if settings.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(settings.clip_norm))
    rates = (*settings.rate_pairs, ("^head/", settings.head_rate))
    if any(rate != 1 for _, rate in rates):
        parts.append(_scale_by_path(rates, packing))
    return optax.chain(*parts)


def check_rates(settings: TrainSettings, params: Any) -> None:
    """Raise ValueError for a pattern of `rates` that no parameter's path holds."""
    paths = [_path(path) for path, _ in jax.tree.leaves_with_path(params)]
    for pattern, _ in settings.rate_pairs:
        if not any(re.search(pattern, path) for path in paths):
            raise ValueError(
                f"train.rates: {pattern!r} is found in no parameter; paths look like "
                f"{paths[0]} and {paths[-1]}"
            )


def _scale_by_path(rates: Rates, packing: Packing) -> optax.GradientTransformation:
    def rate_of(path: tuple) -> float:
        name = _path(path)
        return next((rate for pattern, rate in rates if re.search(pattern, name)), 1.0)

    def scale(updates: Any) -> jax.Array:
        names = jax.tree.unflatten(packing.structure, packing.shapes)
        paths = jax.tree.leaves_with_path(names, is_leaf=lambda node: isinstance(node, tuple))
        scaled, start = [], 0
        # Neighbours of one rate are one part: a few parts, however many arrays there are.
        for rate, group in itertools.groupby(paths, lambda leaf: rate_of(leaf[0])):
            stop = start + sum(math.prod(shape) for _, shape in group)
            part = updates[start:stop]
            scaled.append(part * rate if rate else jnp.zeros_like(part))
            start = stop
        return jnp.concatenate(scaled)

    return optax.stateless(lambda updates, _: scale(updates))


def _path(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
