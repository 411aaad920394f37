"""Scores of predicted images against the truth, over fixed crops and whole fields (section 3.1)."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from isl_jax.data.crops import Crop, CropPlan, fixed_crops
from isl_jax.data.stain import StainScale
from isl_jax.data.store import Dataset, Field
from isl_jax.files import write_json, written_whole
from isl_jax.inference.model import Prediction
from isl_jax.instances.matching import THRESHOLDS, known_labels, match
from isl_jax.metrics import Score, iou, mean_std, pearson
from isl_jax.study.records import ID_COLUMNS, SUMMARY, Row, save_prediction, write_rows
from isl_jax.task import Kind, Metric, crop_rule, kind_of_metric

Window = tuple[slice, slice]


@dataclasses.dataclass(frozen=True)
class Summary:
    """Means over images: `metric` over crops and over fields, and every other score beside it.

    `others` maps `crops` and `fields` to score name → Score; `dropped` names the fields that hold
    too little signal for a single crop (they still count as fields); `test_crops` says which crops
    these are, `tta` how often each image was predicted: scores of others cannot be compared with
    them.
    """

    metric: Metric
    split: str
    crops: Score
    fields: Score
    others: dict[str, dict[str, Score]]
    dropped: tuple[str, ...]
    test_crops: CropPlan
    tta: int = 1

    def table(self) -> str:
        """The scores as lines of text, the metric's own first."""
        lines = [f"{self.split} set{'':12}crops{'':12}fields"]
        for name in (self.metric, *self.others["fields"]):
            crops = self.others["crops"].get(name, "") if name != self.metric else self.crops
            fields = self.others["fields"][name] if name != self.metric else self.fields
            lines.append(f"{name:16} {crops!s:>14}    {fields!s:>14}")
        lines.append(f"{'images':16} {self.crops.count:>14}    {self.fields.count:>14}")
        if self.dropped:
            lines.append(f"without a crop that holds signal: {', '.join(self.dropped)}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """JSON-like; a mean over no image is null."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: plain(item) for name, item in value.items()}
            return None if isinstance(value, float) and math.isnan(value) else value

        return plain(dataclasses.asdict(self))


class Predictor(Protocol):
    """Whatever predicts a field: a network, or files of another program."""

    def __call__(
        self, field: Field, windows: Sequence[Window], /
    ) -> tuple[Prediction, list[Prediction]]:
        """Predict the whole field and each window of it."""
        ...


def score(metric: Metric, prediction: Prediction, truth: np.ndarray) -> dict[str, float]:
    """Scores of one image by name, the metric's own first.

    `truth` `[H, W]` is the stain (any unit) for `pcc`, instance labels for `iou` and `map`. A true
    cell that the border of a crop cuts in two stays one object, as it is in the field.
    """
    if metric == "pcc":
        return {"pcc": pearson(prediction.stain, truth)}
    if metric == "iou":
        # The mask of the labels: of the model's own threshold, without what is too small.
        labels = prediction.labels
        return {"iou": iou(prediction.probability if labels is None else labels, truth)}
    assert prediction.labels is not None
    matched = match(truth, prediction.labels)
    return {
        "map": matched.mean_ap,
        **{f"ap_{t:.2f}": float(ap) for t, ap in zip(THRESHOLDS, matched.ap, strict=True)},
        "f1": float(matched.f1[0]),
        "pq": float(matched.pq[0]),
        "aji": matched.aji,
        "num_true": float(matched.tp[0] + matched.fn[0]),
        "num_predicted": float(matched.tp[0] + matched.fp[0]),
    }


def evaluate_fields(
    predict: Predictor,
    dataset: Dataset,
    plan: CropPlan,
    *,
    metric: Metric,
    split: str,
    folder: Path,
    stain_scale: StainScale | None = None,
    tta: int = 1,
) -> Summary:
    """Score every field of `split` and its fixed crops, and write everything to `folder`.

    `stain_scale` is that of predicted stains: they are compared with the stain as it was measured.
    `tta` is noted: how often each image was predicted (`inference.augmented`).
    Raises ValueError if no field of the split has the truth that `metric` needs.
    """
    kind = kind_of_metric(metric)
    needs_stain = kind == Kind.STAIN
    fields = dataset.select(split, stain=needs_stain, labels=not needs_stain)
    if not fields:
        raise ValueError(
            f"{dataset.root}: no field of split {split!r} has "
            f"{'a stain' if needs_stain else 'labels'} to score against"
        )
    crops, dropped = fixed_crops(dataset, fields, crop_rule(kind, dataset.study), plan)
    truth_of = dataset.stain_image if needs_stain else dataset.labels

    def scored(prediction: Prediction, field: Field, window: Window) -> dict[str, float]:
        truth = np.asarray(truth_of(field.name)[window])
        ignored = None if needs_stain else dataset.ignored(field.name)
        if ignored is not None:
            prediction = _known(prediction, ignored[window], metric)
        if prediction.stain is not None and stain_scale is not None:
            stain = stain_scale.unscale(prediction.stain)
            prediction = dataclasses.replace(prediction, stain=stain)
        return score(metric, prediction, truth)

    by_crop: list[Row] = []
    by_field: list[Row] = []
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(folder) as draft:
        # A log file gets a line now and then, a terminal a smooth bar.
        pace = 0.5 if sys.stderr.isatty() else 15.0
        for field in tqdm(
            fields, desc=f"scoring {folder.parent.name}", unit="field", mininterval=pace
        ):
            chosen = [crop for crop in crops if crop.field == field.name]
            whole, parts = predict(field, [_slices(crop) for crop in chosen])
            everything = slice(None), slice(None)
            by_field.append({"field": field.name, **scored(whole, field, everything)})
            for crop, part in zip(chosen, parts, strict=True):
                scores = scored(part, field, _slices(crop))
                by_crop.append({name: getattr(crop, name) for name in ID_COLUMNS} | scores)
            save_prediction(draft / "predictions", field.name, whole)
        over_crops, over_fields = _means(by_crop), _means(by_field)
        summary = Summary(
            metric=metric,
            split=split,
            crops=over_crops.pop(metric, mean_std([])),
            fields=over_fields.pop(metric),
            others={"crops": over_crops, "fields": over_fields},
            dropped=tuple(dropped),
            test_crops=plan,
            tta=tta,
        )
        write_rows(draft / "crops.csv", by_crop)
        write_rows(draft / "fields.csv", by_field)
        write_json(draft / SUMMARY, summary.to_json())
    return summary


def _known(prediction: Prediction, ignored: np.ndarray, metric: Metric) -> Prediction:
    """A prediction where the truth is known; of objects, those that lie there for the most part."""
    labels, probability = prediction.labels, prediction.probability
    if labels is not None:
        objects = known_labels(labels, ignored) if metric == "map" else labels
        labels = np.where(ignored, 0, objects)
    if probability is not None:
        probability = np.where(ignored, 0, probability)
    return dataclasses.replace(prediction, labels=labels, probability=probability)


def _means(rows: Sequence[Row]) -> dict[str, Score]:
    names = [name for name in (rows[0] if rows else ()) if name not in ID_COLUMNS]
    return {name: mean_std([row[name] for row in rows]) for name in names}


def _slices(crop: Crop) -> Window:
    # An image smaller than the crop is taken as it is: slices end at its border.
    return (
        slice(crop.top, crop.top + crop.size),
        slice(crop.left, crop.left + crop.size),
    )
