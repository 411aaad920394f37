"""Which fields stand for the others: an order in which each next one adds most.

A field stands for those that look like it. The places of all fields have features; a difference
counts in units of what places of one data set differ by. Of the fields that add nearly as much, the
one with the most objects comes first: more of the annotator's time goes to cells, less to empty
background.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from isl_jax.data.store import Dataset, Field

# How the annotated fields of a study are chosen: by its seed, or in the order made here.
Choice = Literal["random", "suggested"]
CHOICES: tuple[Choice, ...] = ("random", "suggested")
# A field adds nearly as much as the best one with this share of what that adds.
NEARLY = 0.75
# A place differs from the usual by no more than this, so that one odd field hides no others.
FARTHEST = 4.0


@dataclass(frozen=True)
class NextField:
    """The next field of an order: its index, and why it.

    `distance` to the nearest of those before it, of the first the mean distance to all others;
    `nearest`, the index of that one (None for the first); `stands_for`, how many fields are nearer
    to it than to those before; `rivals`, how many fields added nearly as much.
    """

    index: int
    distance: float
    nearest: int | None
    stands_for: int
    rivals: int


def field_features(places: Sequence[np.ndarray]) -> np.ndarray:
    """Features [n, F] of fields from those of their places, [places, F] each.

    Each feature minus its median over places of all fields (as many of each), divided by half of
    what the middle 68 % of them span, cut off at ± FARTHEST, and averaged in each field. Features
    that do not vary are 0.
    """
    fewest = min(map(len, places))
    rows = np.concatenate([p[np.linspace(0, len(p) - 1, fewest).astype(int)] for p in places])
    low, middle, high = np.percentile(rows, (16, 50, 84), axis=0)
    spread = (high - low) / 2
    varies = spread > 1e-9 * (1 + np.abs(middle))
    scale = np.where(varies, 1 / np.where(varies, spread, 1), 0)
    return np.stack(
        [np.clip((p - middle) * scale, -FARTHEST, FARTHEST).mean(axis=0) for p in places]
    )


def distances(features: np.ndarray) -> np.ndarray:
    """Root mean square difference of each two rows of features [n, F]: [n, n]."""
    return np.stack([np.sqrt(np.mean((features - row) ** 2, axis=1)) for row in features])


def order_by_coverage(
    features: np.ndarray,
    candidates: Sequence[int],
    *,
    given: Sequence[int] = (),
    objects: Sequence[int] | None = None,
) -> list[NextField]:
    """Order the `candidates` among fields with `features` [n, F] by what each next one adds.

    It adds what it takes off the sum, over all fields, of the distance to the nearest one chosen
    (greedy k-medoids: typical and different fields come early, a single odd one late); `given` are
    chosen from the start. Among those that add at least `NEARLY` of the most, the one with the most
    `objects` [n] is next, or, where these are not known, the one that adds most. Every beginning of
    the order is the order of a smaller number.
    """
    apart = distances(features)
    chosen, rest, steps = list(given), list(candidates), []
    while rest:
        if chosen:
            now = apart[:, chosen].min(axis=1)
            added = np.maximum(now[:, None] - apart[:, rest], 0).sum(axis=0)
        else:
            now = np.full(len(apart), np.inf)
            total = apart[:, rest].sum(axis=0)
            # Half of the fields add nothing: they are less typical than the middle one.
            added = np.maximum(np.median(total) - total, 0)
        near = np.flatnonzero(added >= NEARLY * added.max())
        ranks = [(0 if objects is None else objects[rest[k]], added[k], -k) for k in near]
        index = rest[near[max(range(len(near)), key=ranks.__getitem__)]]
        others = max(1, len(apart) - 1)
        steps.append(
            NextField(
                index,
                float(now[index]) if chosen else float(apart[index].sum() / others),
                chosen[int(apart[index, chosen].argmin())] if chosen else None,
                int((apart[:, index] < now).sum()),
                len(near),
            )
        )
        chosen.append(index)
        rest.remove(index)
    return steps


def plane_map(features: np.ndarray) -> np.ndarray:
    """Place of each field on a map [n, 2]: the first two principal components of [n, F]."""
    centred = features - features.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((len(features), 2))
    count = min(2, len(singular))
    flat[:, :count] = left[:, :count] * singular[:count]
    # A sign is arbitrary: the largest value of each component is positive.
    return flat * np.where(np.abs(flat.min(axis=0)) > flat.max(axis=0), -1, 1)


def annotated_subset(dataset: Dataset, n: int, seed: int) -> tuple[Field, ...]:
    """The first n of the labelled training fields in an order drawn by `seed`.

    Nested in n for one seed (1 ⊂ 10 ⊂ …); val and test never enter. Raises ValueError if there are
    fewer than n.
    """
    candidates = dataset.select("train", labels=True)
    if not candidates:
        raise ValueError(
            f"{dataset.root}: no training field has labels to learn from; prepare the data set "
            "with isl-prepare --labels=…"
        )
    if not 1 <= n <= len(candidates):
        raise ValueError(
            f"{dataset.root}: {n} annotated training fields were asked for, there are "
            f"{len(candidates)}; choose N between 1 and {len(candidates)}"
        )
    order = np.random.default_rng(seed).permutation(len(candidates))
    return tuple(candidates[k] for k in order[:n])
