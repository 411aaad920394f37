"""Scores of one trained run, or of anybody's label images, on the withheld fields (section 3.1).

Everything is scored twice: on fixed test crops, as in the paper, and on whole fields. The crops
depend on the data set and on `seed` only, so that every run of a study is scored on the same ones.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from tqdm import tqdm

from isl_jax.data import readers
from isl_jax.data.crops import NO_MARGIN, Crop, Margin, Rule, fixed_crops
from isl_jax.data.store import Dataset, Field
from isl_jax.inference.model import Prediction, load_model
from isl_jax.instances.matching import THRESHOLDS, match
from isl_jax.metrics import iou, pearson
from isl_jax.study.environment import write_json
from isl_jax.study.records import (
    ID_COLUMNS,
    SUMMARY,
    Row,
    evaluation_folder,
    save_prediction,
    write_rows,
    written_whole,
)
from isl_jax.study.statistics import Score, mean_std

Metric = Literal["pcc", "iou", "map"]
Window = tuple[slice, slice]

# The crops that are kept hold what is scored on them, by the same rules as in training.
_CROP_RULES: Mapping[Metric, Rule] = {
    "pcc": "stain_signal",
    "iou": "foreground",
    "map": "any_label",
}
_METRICS: Mapping[str, Metric] = {
    "stain": "pcc",
    "semantic": "iou",
    "distance_and_semantic": "map",
}


@dataclasses.dataclass(frozen=True)
class Summary:
    """Means over images: `metric` over crops and over fields, and every other score beside it.

    `others` maps `crops` and `fields` to score name → Score; `dropped` names the fields that hold
    too little signal for a single crop (they still count as fields).
    """

    metric: Metric
    split: str
    crops: Score
    fields: Score
    others: dict[str, dict[str, Score]]
    dropped: tuple[str, ...]

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


class _Predictor(Protocol):
    def __call__(
        self, field: Field, windows: Sequence[Window], /
    ) -> tuple[Prediction, list[Prediction]]:
        """Predict the whole field and each window of it."""
        ...


def evaluate_run(
    workdir: Path,
    dataset: Dataset,
    *,
    split: str = "test",
    crops_per_image: int = 5,
    crop_size: int = 512,
    margin: Margin = NO_MARGIN,
    seed: int = 0,
) -> Summary:
    """Score a trained run on `split` and write `workdir/evaluation/`.

    Pretext runs get the PCC of predicted and true stain, nucleus runs the IoU of the semantic mask
    (probability > 0.5), cell runs the mAP of the instances with AP at each threshold, F1, AJI and
    PQ. `seed` draws the crops: leave it alone to compare runs. Splits other than `test` go to
    `evaluation_<split>/`. Raises ValueError or FileNotFoundError for a run without a usable model,
    or a data set that does not fit it.
    """
    model = load_model(workdir)
    metric = _METRICS[model.info.objective.target]
    if model.info.channels != dataset.channels:
        raise ValueError(
            f"{dataset.root}: has channels {', '.join(dataset.channels)}, the model in {workdir} "
            f"was trained on {', '.join(model.info.channels)}"
        )
    if metric == "map" and model.info.h is None:
        raise ValueError(f"{workdir}/model: no marker contrast h yet; let the training finish")

    def predict(field: Field, windows: Sequence[Window]) -> tuple[Prediction, list[Prediction]]:
        image = dataset.standardised(field.name)
        whole = model.predict_standardised(image[None])[0]
        if not windows:
            return whole, []
        # Always the same number of crops, so that the network compiles once.
        batch = np.stack([image[window] for window in windows])
        filler = np.zeros((max(0, crops_per_image - len(batch)), *batch.shape[1:]), np.float32)
        crops = model.predict_standardised(np.concatenate([batch, filler]))
        return whole, crops[: len(windows)]

    return _evaluate(
        predict,
        dataset,
        metric=metric,
        folder=evaluation_folder(workdir, split),
        split=split,
        description=f"evaluating {workdir.name}",
        crop_rule={"size": crop_size, "per_image": crops_per_image, "seed": seed, "margin": margin},
    )


def evaluate_labels(
    predictions: Path,
    workdir: Path,
    dataset: Dataset,
    *,
    split: str = "test",
    crops_per_image: int = 5,
    crop_size: int = 512,
    margin: Margin = NO_MARGIN,
    seed: int = 0,
) -> Summary:
    """Score label images of another program by the same code against the same truth.

    `predictions` holds one label image a field, called after it: `<field>.tif` or
    `<field>_<anything>.png` (Cellpose: `<field>_cp_masks.png`). Crops are windows of them. Writes
    `workdir/evaluation/`. Raises ValueError or FileNotFoundError for a missing, ambiguous or
    ill-sized file.
    """
    files = {
        field.name: _label_file(predictions, field) for field in dataset.select(split, labels=True)
    }

    def predict(field: Field, windows: Sequence[Window]) -> tuple[Prediction, list[Prediction]]:
        labels = readers.read(files[field.name])[0]
        if labels.shape != (field.height, field.width):
            raise ValueError(
                f"{files[field.name]}: is {' × '.join(map(str, labels.shape))} pixels, field "
                f"{field.name} is {field.height} × {field.width}"
            )
        whole = Prediction(probability=(labels != 0).astype(np.float32), labels=labels)
        return whole, [_cut(whole, window) for window in windows]

    return _evaluate(
        predict,
        dataset,
        metric="iou" if dataset.study == "nucleus" else "map",
        folder=evaluation_folder(workdir, split),
        split=split,
        description=f"scoring {predictions.name}",
        crop_rule={"size": crop_size, "per_image": crops_per_image, "seed": seed, "margin": margin},
    )


def score(metric: Metric, prediction: Prediction, truth: np.ndarray) -> dict[str, float]:
    """Scores of one image by name, the metric's own first.

    `truth` `[H, W]` is the stain (any unit) for `pcc`, instance labels for `iou` and `map`. A true
    cell that the border of a crop cuts in two stays one object, as it is in the field.
    """
    if metric == "pcc":
        return {"pcc": pearson(prediction.stain, truth)}
    if metric == "iou":
        return {"iou": iou(prediction.probability, truth)}
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


def _evaluate(
    predict: _Predictor,
    dataset: Dataset,
    *,
    metric: Metric,
    folder: Path,
    split: str,
    description: str,
    crop_rule: Mapping[str, Any],
) -> Summary:
    needs_stain = metric == "pcc"
    fields = dataset.select(split, stain=needs_stain, labels=not needs_stain)
    if not fields:
        raise ValueError(
            f"{dataset.root}: no field of split {split!r} has "
            f"{'a stain' if needs_stain else 'labels'} to score against"
        )
    crops, dropped = fixed_crops(dataset, fields, rule=_CROP_RULES[metric], **crop_rule)
    truth_of = dataset.stain_image if needs_stain else dataset.labels
    by_crop: list[Row] = []
    by_field: list[Row] = []
    with written_whole(folder) as draft:
        for field in tqdm(fields, desc=description, unit="field", mininterval=0.5):
            chosen = [crop for crop in crops if crop.field == field.name]
            whole, parts = predict(field, [_slices(crop) for crop in chosen])
            truth = np.asarray(truth_of(field.name))
            by_field.append({"field": field.name, **score(metric, whole, truth)})
            for crop, part in zip(chosen, parts, strict=True):
                scores = score(metric, part, truth[_slices(crop)])
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
        )
        write_rows(draft / "crops.csv", by_crop)
        write_rows(draft / "fields.csv", by_field)
        write_json(draft / SUMMARY, summary.to_json())
    return summary


def _means(rows: Sequence[Row]) -> dict[str, Score]:
    names = [name for name in (rows[0] if rows else ()) if name not in ID_COLUMNS]
    return {name: mean_std([row[name] for row in rows]) for name in names}


def _slices(crop: Crop) -> Window:
    # An image smaller than the crop is taken as it is: slices end at its border.
    return (
        slice(crop.top, crop.top + crop.size),
        slice(crop.left, crop.left + crop.size),
    )


def _cut(prediction: Prediction, window: Window) -> Prediction:
    maps = {field.name: getattr(prediction, field.name) for field in dataclasses.fields(prediction)}
    return Prediction(**{k: None if v is None else v[window] for k, v in maps.items()})


def _label_file(folder: Path, field: Field) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; it should hold one label image a field")
    images = [
        path for path in sorted(folder.iterdir()) if path.suffix.lower() in readers.IMAGE_SUFFIXES
    ]
    exact = [path for path in images if path.stem == field.name]
    found = exact or [path for path in images if path.stem.startswith(f"{field.name}_")]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ValueError(
            f"{folder}: field {field.name} needs one label image, {field.name}.tif or "
            f"{field.name}_<anything>.png; found {names}"
        )
    return found[0]
