"""Which crops to train on: fixed or fresh, kept by rules that cost O(1) a candidate."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from zlib import crc32

import numpy as np

from isl_jax.data.stain import STAIN_FRACTION, stain_threshold
from isl_jax.data.store import Dataset, Field
from isl_jax.task import CropRule

# A crop of 512² needs 5000 foreground pixels (section 2); other sizes the same fraction.
FOREGROUND_FRACTION = 5000 / 512**2

Margin = tuple[float, float, float, float]
NO_MARGIN: Margin = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Crop:
    """A square window of a field, in pixels; it may reach past fields that are smaller."""

    field: str
    top: int
    left: int
    size: int


@dataclass(frozen=True)
class CropPlan:
    """How crops are drawn: `per_image` of `size` pixels squared from each field, by `seed`.

    `margin` (top, bottom, left, right) are fractions of the field that crops stay out of.
    """

    size: int = 512
    per_image: int = 5
    margin: Margin = NO_MARGIN
    seed: int = 0


def window_counts(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Number of set pixels in every height × width window, by a summed-area table.

    mask: bool [H, W]. Returns int32 [H − height + 1, W − width + 1], indexed by the window's top
    left pixel: four table look-ups a window, whatever its size.
    """
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    np.cumsum(mask, axis=1, dtype=np.int32, out=table[1:, 1:])
    for row in range(2, len(table)):  # by whole rows: np.cumsum down the columns is slower
        table[row] += table[row - 1]
    strips = table[height:] - table[:-height]
    return strips[:, width:] - strips[:, :-width]


def valid_positions(dataset: Dataset, field: Field, rule: CropRule, plan: CropPlan) -> np.ndarray:
    """Top-left positions of crops that keep the rule and the plan's margins: bool [H, W].

    Rules: "stain_signal", stain above `stain_threshold` on at least STAIN_FRACTION of the crop;
    "foreground", labels on at least FOREGROUND_FRACTION of it; "any_label", labels somewhere;
    "any", no rule. A field shorter than the crop has one position along that axis, 0, and none if
    it has a margin there.
    """
    size = plan.size
    valid = np.zeros((field.height, field.width), bool)
    tops = _range(field.height, size, *plan.margin[:2])
    lefts = _range(field.width, size, *plan.margin[2:])
    if not tops or not lefts:
        return valid
    allowed = valid[tops.start : tops.stop, lefts.start : lefts.stop]
    if rule == "any":
        allowed[:] = True
        return valid
    counts = window_counts(
        _signal(dataset, field, rule), min(size, field.height), min(size, field.width)
    )
    fraction = {"foreground": FOREGROUND_FRACTION, "stain_signal": STAIN_FRACTION}.get(rule, 0)
    needed = max(1, ceil(fraction * size * size))
    allowed[:] = counts[tops.start : tops.stop, lefts.start : lefts.stop] >= needed
    return valid


def _range(length: int, size: int, before: float, after: float) -> range:
    if length < size:
        return range(0 if before or after else 1)
    return range(ceil(before * length), floor((1 - after) * length) - size + 1)


def _signal(dataset: Dataset, field: Field, rule: CropRule) -> np.ndarray:
    if rule == "stain_signal":
        stain = dataset.stain_image(field.name)
        return stain > stain_threshold(stain)
    if rule in ("foreground", "any_label"):
        return dataset.labels(field.name) > 0
    raise ValueError(f"crop rule {rule!r} is none of stain_signal, foreground, any_label, any")


def _draw_seed(seed: int, name: str, *more: int) -> list[int]:
    # By the field's name: its crops do not depend on which other fields are in the subset.
    return [seed, crc32(name.encode("utf-8", "surrogateescape")), *more]


def fixed_crops(
    dataset: Dataset,
    fields: Sequence[Field],
    rule: CropRule,
    plan: CropPlan,
) -> tuple[tuple[Crop, ...], tuple[str, ...]]:
    """The paper's crops, drawn once: `plan.per_image` different ones of each field.

    Each is drawn uniformly from the field's valid positions (see `valid_positions`), the same for
    a field whatever other fields are given. Returns (crops in field order, names of the fields
    dropped for having no valid position); a field with fewer positions gives what it has.
    """
    crops, dropped = [], []
    for field in fields:
        positions = np.flatnonzero(valid_positions(dataset, field, rule, plan))
        if not len(positions):
            dropped.append(field.name)
            continue
        rng = np.random.default_rng(_draw_seed(plan.seed, field.name))
        for at in rng.choice(positions, min(plan.per_image, len(positions)), replace=False):
            crops.append(Crop(field.name, int(at) // field.width, int(at) % field.width, plan.size))
    return tuple(crops), tuple(dropped)


class FreshCrops:
    """New crops each epoch: crop `index` of an epoch is a function of (seed, epoch, index) alone.

    Valid positions are kept as one bit a pixel. `dropped` names the fields that have none;
    `len()` is the number of crops an epoch, `plan.per_image` for each field kept.
    """

    def __init__(self, dataset: Dataset, fields: Sequence[Field], rule: CropRule, plan: CropPlan):
        self.plan = plan
        self._fields: list[tuple[Field, np.ndarray, np.ndarray]] = []
        dropped = []
        for field in fields:
            valid = valid_positions(dataset, field, rule, plan)
            if valid.any():
                self._fields.append((field, valid.sum(1).cumsum(), np.packbits(valid, axis=1)))
            else:
                dropped.append(field.name)
        self.dropped = tuple(dropped)

    def __len__(self) -> int:
        return len(self._fields) * self.plan.per_image

    def crop(self, epoch: int, index: int) -> Crop:
        """Crop number `index` (0 ≤ index < len) of an epoch."""
        field, rows, bits = self._fields[index // self.plan.per_image]
        rng = np.random.default_rng(_draw_seed(self.plan.seed, field.name, epoch, index))
        rank = int(rng.integers(rows[-1]))
        top = int(np.searchsorted(rows, rank, side="right"))
        before = int(rows[top - 1]) if top else 0
        left = int(np.flatnonzero(np.unpackbits(bits[top]))[rank - before])
        return Crop(field.name, top, left, self.plan.size)
