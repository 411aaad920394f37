"""Which fields to annotate: signals that need no label, an order, and the reasons for it."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np

from isl_jax.data.appearance import SATURATED, UNSHARP, acquisition, places
from isl_jax.data.coverage import NextField, field_features, order_by_coverage, plane_map
from isl_jax.data.stain import Shows, shown_by
from isl_jax.data.store import Dataset, Field
from isl_jax.inference.features import EncoderFeatures
from isl_jax.inference.model import load_model
from isl_jax.instances.drafts import draft_cells, draft_nuclei

# Of larger fields the middle is looked at, so many pixels a side.
_LOOKED_AT = 1024


@dataclass(frozen=True)
class Signals:
    """What is known of a field without a label: `objects` in its stain (None without one), how it
    was acquired, and features of its places [n, F].
    """

    objects: int | None
    sharpness: float
    saturated: float
    places: np.ndarray


@dataclass(frozen=True)
class Suggested:
    """A field in the order of annotation, and why it stands there, in one line."""

    name: str
    reason: str
    objects: int | None


@dataclass(frozen=True)
class Suggestion:
    """An order of fields to annotate: the first n are those to take for n.

    `excluded`: field → the fault that keeps it out. `places`: field → its place on a map of all
    fields that were looked at, which are more where some have labels already. `seen_by`: what the
    fields were compared by.
    """

    order: tuple[Suggested, ...]
    excluded: Mapping[str, str]
    places: Mapping[str, tuple[float, float]]
    seen_by: str

    def to_json(self) -> dict[str, Any]:
        """As plain values, in order."""
        return asdict(self) | {"order": [asdict(item) for item in self.order]}


def suggest(
    dataset: Dataset,
    candidates: Sequence[Field],
    *,
    given: Sequence[Field] = (),
    others: Sequence[Field] = (),
    model: str | None = None,
    shows: Shows | None = None,
    workers: int = 1,
    on_field: Callable[[], object] = lambda: None,
) -> Suggestion:
    """Order `candidates` by what each adds to those before it and to `given` (annotated already).

    They stand for all fields of these three. `model`: a trained one, whose encoder compares them
    (without: statistics of the image). `shows`: what the stain shows (without: by its name).
    Fields out of focus, saturated, or without an object in their stain are excluded. Raises
    ValueError for a model of other channels, or where no candidate is left.
    """
    fields = list({f.name: f for f in (*candidates, *given, *others)}.values())
    names = [field.name for field in fields]
    encoder = EncoderFeatures(load_model(model)) if model else None
    if encoder and len(encoder.channels) != len(dataset.channels):
        raise ValueError(
            f"{model}: was trained on {len(encoder.channels)} channels "
            f"({', '.join(encoder.channels)}), {dataset.root} has {len(dataset.channels)} "
            f"({', '.join(dataset.channels)}); use a model of the same inputs, or none"
        )
    shown = shows or shown_by(dataset.stain or "", dataset.study)
    look = functools.partial(_signals, dataset, shows=shown, with_places=encoder is None)
    signals: dict[str, Signals] = {}
    for name, found in zip(names, _mapped(look, names, workers), strict=True):
        if encoder:
            image = dataset.standardised(name, encoder.normalisation)
            found = replace(found, places=encoder.places(image))
        signals[name] = found
        on_field()
    faults = _faults(signals)
    sound = [k for k, field in enumerate(fields) if field.name not in faults]
    features = field_features([signals[names[k]].places for k in sound])
    place_of = {names[k]: index for index, k in enumerate(sound)}
    eligible = [place_of[f.name] for f in candidates if f.name in place_of]
    if not eligible:
        told = "; ".join(f"{name}: {fault}" for name, fault in list(faults.items())[:3])
        raise ValueError(f"{dataset.root}: no field is fit to be annotated ({told})")
    objects = [signals[names[k]].objects for k in sound]
    steps = order_by_coverage(
        features,
        eligible,
        given=[place_of[f.name] for f in given if f.name in place_of],
        objects=None if None in objects else [int(n or 0) for n in objects],
    )
    on_map = plane_map(features)
    sound_names = [names[k] for k in sound]
    return Suggestion(
        tuple(
            Suggested(sound_names[s.index], _reason(s, sound_names, objects), objects[s.index])
            for s in steps
        ),
        {f.name: faults[f.name] for f in candidates if f.name in faults},
        {n: (float(x), float(y)) for n, (x, y) in zip(sound_names, on_map, strict=True)},
        f"features of the encoder of {model}" if model else "statistics of the images",
    )


def _mapped(
    look: Callable[[str], Signals], names: Sequence[str], workers: int
) -> Iterable[Signals]:
    if workers <= 1:
        yield from map(look, names)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(look, names)


def _signals(dataset: Dataset, name: str, *, shows: Shows, with_places: bool) -> Signals:
    """Signals of a field, of its middle where it is large; objects are counted for all of it."""
    field = dataset.field(name)
    top, left = (max(0, (size - _LOOKED_AT) // 2) for size in (field.height, field.width))
    window = np.s_[top : top + _LOOKED_AT, left : left + _LOOKED_AT]
    stain = np.asarray(dataset.stain_image(name)[window]) if field.has_stain else None
    objects = None
    if field.has_drafts:
        objects = len(np.setdiff1d(dataset.drafts(name), 0))
    elif stain is not None:
        draft = draft_nuclei(stain) if shows == "nuclei" else draft_cells(stain)
        objects = round(int(draft.max()) * field.height * field.width / stain.size)
    inputs = np.asarray(dataset.inputs(name)[window])
    seen = acquisition(inputs)
    seen_places = np.zeros((1, 1))
    if with_places:
        levels = dataset.levels(name)
        seen_places = places(levels.apply(inputs, top=top, left=left))
    return Signals(objects, seen.sharpness, seen.saturated, seen_places)


def _faults(signals: Mapping[str, Signals]) -> dict[str, str]:
    """What keeps fields from being annotated, in words."""
    middle = float(np.median([s.sharpness for s in signals.values()]))
    faults = {}
    for name, found in signals.items():
        if found.sharpness < UNSHARP * middle:
            share = found.sharpness / middle
            faults[name] = f"out of focus (fine details at {share:.0%} of the usual contrast)"
        elif found.saturated > SATURATED:
            faults[name] = f"saturated ({found.saturated:.1%} of a plane at its highest value)"
        elif found.objects == 0:
            faults[name] = "no object in its stain"
    return faults


def _reason(step: NextField, names: Sequence[str], objects: Sequence[int | None]) -> str:
    if step.nearest is None:
        why = "typical: near to all other fields"
    else:
        why = (
            f"unlike those before it (distance {step.distance:.2f} to {names[step.nearest]}), "
            f"stands for {step.stands_for} field{'s' * (step.stands_for != 1)}"
        )
    count = objects[step.index]
    if count is None:
        return why
    most = f", the most of {step.rivals} that add nearly as much" if step.rivals > 1 else ""
    return f"{why}; {count} object{'s' * (count != 1)} in its stain{most}"


def drawn(candidates: Sequence[Field], seed: int) -> Suggestion:
    """Fields in an order drawn by `seed`, as `annotated_subset` draws them; no signals are read."""
    order = np.random.default_rng(seed).permutation(len(candidates))
    items = tuple(Suggested(candidates[k].name, f"drawn by seed {seed}", None) for k in order)
    return Suggestion(items, {}, {}, "chance")
