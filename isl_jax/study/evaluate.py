"""Scores of one trained run, or of anybody's label images, on the withheld fields (section 3.1).

Everything is scored twice: on fixed test crops, as in the paper, and on whole fields.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from isl_jax.data.crops import CropPlan
from isl_jax.data.store import Dataset, Field
from isl_jax.inference.model import Prediction, load_model
from isl_jax.study.records import evaluation_folder
from isl_jax.study.scoring import Summary, Window, evaluate_fields
from isl_jax.task import METRICS, kind_of_study


def evaluate_run(
    workdir: Path,
    dataset: Dataset,
    plan: CropPlan,
    *,
    split: str = "test",
    tta: int | None = None,
) -> Summary:
    """Score a trained run on `split` and write `workdir/evaluation/`.

    `plan` draws the crops: whatever is scored on those of one plan can be compared. Pretext runs
    get the PCC of predicted and true stain, nucleus runs the IoU of the semantic mask, cell runs
    the mAP of the instances with AP at each threshold, F1, AJI and PQ. All are predicted in
    float32, augmented by `tta` or as the model says. Splits other than `test` go to
    `evaluation_<split>/`. Raises ValueError or FileNotFoundError for a run without a usable model,
    or a data set that does not fit it.
    """
    model = load_model(workdir, tta=tta)
    task = model.info.task
    if model.info.channels != dataset.channels:
        raise ValueError(
            f"{dataset.root}: has channels {', '.join(dataset.channels)}, the model in {workdir} "
            f"was trained on {', '.join(model.info.channels)}"
        )
    if task.has_distance and model.info.postprocessing.h is None:
        raise ValueError(f"{workdir}/model: no marker contrast h yet; let the training finish")

    def predict(field: Field, windows: Sequence[Window]) -> tuple[Prediction, list[Prediction]]:
        image = dataset.standardised(field.name, model.info.normalisation)
        whole = model.predict_standardised(image[None])[0]
        if not windows:
            return whole, []
        # Always the same number of crops, so that the network compiles once.
        batch = np.stack([image[window] for window in windows])
        filler = np.zeros((max(0, plan.per_image - len(batch)), *batch.shape[1:]), np.float32)
        parts = model.predict_standardised(np.concatenate([batch, filler]))
        return whole, parts[: len(windows)]

    return evaluate_fields(
        predict,
        dataset,
        plan,
        metric=task.metric,
        split=split,
        folder=evaluation_folder(workdir, split),
        stain_scale=model.info.stain_scale,
        tta=model.info.tta,
    )


def evaluate_labels(
    predictions: Path,
    workdir: Path,
    dataset: Dataset,
    plan: CropPlan,
    *,
    read: Callable[[Path], np.ndarray],
    stem_of: Callable[[Path], str | None],
    split: str = "test",
) -> Summary:
    """Score label images of another program by the same code against the same truth.

    `predictions` holds one label image a field, called after it: `<field>.tif` or
    `<field>_<anything>.png` (Cellpose: `<field>_cp_masks.png`); `stem_of` gives an image's name
    without its suffix, None of what is no image, and `read` its ids int32 `[H, W]`. Crops are
    windows of them. Writes `workdir/evaluation/`. Raises ValueError or FileNotFoundError for a
    missing, ambiguous or ill-sized file.
    """
    files = {
        field.name: _label_file(predictions, field, stem_of)
        for field in dataset.select(split, labels=True)
    }

    def predict(field: Field, windows: Sequence[Window]) -> tuple[Prediction, list[Prediction]]:
        labels = read(files[field.name])
        if labels.shape != (field.height, field.width):
            raise ValueError(
                f"{files[field.name]}: is {' × '.join(map(str, labels.shape))} pixels, field "
                f"{field.name} is {field.height} × {field.width}"
            )
        whole = Prediction(probability=(labels != 0).astype(np.float32), labels=labels)
        return whole, [_cut(whole, window) for window in windows]

    return evaluate_fields(
        predict,
        dataset,
        plan,
        metric=METRICS[kind_of_study(dataset.study)],
        split=split,
        folder=evaluation_folder(workdir, split),
    )


def _cut(prediction: Prediction, window: Window) -> Prediction:
    maps = {field.name: getattr(prediction, field.name) for field in dataclasses.fields(prediction)}
    return Prediction(**{k: None if v is None else v[window] for k, v in maps.items()})


def _label_file(folder: Path, field: Field, stem_of: Callable[[Path], str | None]) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; it should hold one label image a field")
    stems = {path: stem_of(path) for path in sorted(folder.iterdir()) if path.name[0] != "."}
    exact = [path for path, stem in stems.items() if stem == field.name]
    named = [path for path, stem in stems.items() if (stem or "").startswith(f"{field.name}_")]
    found = exact or named
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ValueError(
            f"{folder}: field {field.name} needs one label image, {field.name}.tif or "
            f"{field.name}_<anything>.png; found {names}"
        )
    return found[0]
