"""Pictures of what the runs of a study predicted, beside the truth (Figs. 8 and 10)."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from isl_jax.data.store import Dataset
from isl_jax.report import figures
from isl_jax.report.results import Study
from isl_jax.report.runs import Run, Scored
from isl_jax.report.wording import arm_name
from isl_jax.study.records import ISL, read_prediction
from isl_jax.tabular import printable

# Larger fields are shown by their central window, so that single cells can be made out.
_WINDOW = 512


@dataclasses.dataclass(frozen=True)
class Panel:
    """One test field: why it was chosen, RGB pictures uint8 `[H, W, 3]` and scores by caption.

    Scores are those of the whole field, of the run that is shown.
    """

    field: str
    note: str
    size: str
    pictures: Mapping[str, np.ndarray]
    scores: Mapping[str, float]


def panels(study: Study, dataset: Dataset) -> list[Panel]:
    """Worst, median and best test field of ISL at the smallest N, by score of the whole field."""
    runs: dict[str, Scored] = {**_shown_runs(study)}
    leading = runs.get(ISL) or next(iter(runs.values()), None)
    if leading is None:
        return []
    runs |= {other.name: other for other in study.others}
    ranked = sorted(leading.rows["fields"], key=lambda row: row[study.metric])
    ranked = [row["field"] for row in ranked if _is_known(dataset, row["field"])]
    if not ranked:
        return []
    places = {"worst": 0, "median": (len(ranked) - 1) // 2, "best": len(ranked) - 1}
    chosen: dict[str, list[str]] = {}
    for note, place in places.items():
        chosen.setdefault(ranked[place], []).append(note)
    if len(ranked) == 1:
        chosen = {ranked[0]: ["the only one"]}
    return [_panel(study, dataset, name, notes, runs) for name, notes in chosen.items()]


def _is_known(dataset: Dataset, name: str) -> bool:
    return any(field.name == name and field.has_labels for field in dataset.fields)


def _shown_runs(study: Study) -> dict[str, Run]:
    """The run of each arm that is shown: the first seed for which most of them are done."""
    n = study.n[0]
    found = [
        {arm: run for arm in study.arms for run in study.of(arm, n) if run.seed == seed}
        for seed in study.seeds
    ]
    return max(found, key=len, default={})


def _panel(
    study: Study, dataset: Dataset, name: str, notes: list[str], runs: Mapping[str, Scored]
) -> Panel:
    field = dataset.field(name)
    window = (_central(field.height), _central(field.width))
    truth = np.asarray(dataset.labels(name)[window])
    inputs = dataset.inputs(name)[window]
    background = figures.grey(inputs[..., 0])
    pictures = {f"input: {dataset.channels[0]}": background}
    if field.has_stain:
        pictures |= _stains(study, dataset, name, window)
    known = background
    if (ignored := dataset.ignored(name)) is not None:
        known = np.where(ignored[window][..., None], background // 3, background)  # dark: unknown
    pictures["truth"] = _overlay(study, known, truth, truth)
    scores: dict[str, float] = {}
    for arm, run in runs.items():
        labels = read_prediction(run.workdir, name, "labels", (field.height, field.width))
        if labels is not None:
            # uint32 ids from the file; the overlays compare them with int32 truth.
            shown = labels[window].astype(np.int64)
            caption = arm_name(arm)
            pictures[caption] = _overlay(study, background, shown, truth)
            scores[caption] = _field_score(run, name, study.metric)
    return Panel(
        field=printable(name),
        note=" and ".join(notes),
        size=f"{truth.shape[1]} × {truth.shape[0]} of {field.width} × {field.height} pixels",
        pictures=pictures,
        scores=scores,
    )


def _field_score(run: Scored, name: str, metric: str) -> float:
    return next((row[metric] for row in run.rows["fields"] if row["field"] == name), math.nan)


def _stains(
    study: Study, dataset: Dataset, name: str, window: tuple[slice, slice]
) -> dict[str, np.ndarray]:
    scale = dataset.field_stain_scale(name)
    true = scale.scale(np.asarray(dataset.stain_image(name)[window]))
    # One grey scale for both, or a faint prediction would look like a good one.
    low, high = (float(v) for v in np.percentile(true, [0.5, 99.8]))
    pictures = {f"stain: {dataset.stain}": figures.grey(true, limits=(low, high))}
    size = (dataset.field(name).height, dataset.field(name).width)
    pretext = study.pretext
    predicted = read_prediction(pretext.workdir, name, "stain", size) if pretext else None
    if predicted is not None:
        pictures["predicted stain"] = figures.grey(predicted[window], limits=(low, high))
    return pictures


def _overlay(
    study: Study, background: np.ndarray, labels: np.ndarray, truth: np.ndarray
) -> np.ndarray:
    if study.metric == "iou":
        return figures.semantic_overlay(background, labels > 0, truth > 0)
    return figures.instance_overlay(background, labels, truth)


def _central(length: int) -> slice:
    start = max(0, (length - _WINDOW) // 2)
    return slice(start, min(length, start + _WINDOW))
