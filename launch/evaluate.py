"""Score a trained run on the withheld fields: PCC, IoU or mAP over crops and over whole fields.

    isl-evaluate --workdir=W1
    isl-evaluate --predictions=CELLPOSE_MASKS --sweep=S
    isl-evaluate --predictions=CELLPOSE_MASKS --data_root=DATA --workdir=W2

Writes evaluation/crops.csv, evaluation/fields.csv, evaluation/summary.json and the predicted maps
of each field into the workdir. With --predictions, label images of another program, called after
the fields (`<field>.tif`, `<field>_cp_masks.png`), are scored by the same code against the same
truth; with --sweep on the crops of that sweep, whose report then shows them beside its own runs.
Scores on other crops or with another --tta, which cannot be compared, are replaced only with
--overwrite.
"""

import dataclasses
from pathlib import Path
from typing import Any

from absl import flags

from isl_jax.data.crops import NO_MARGIN, CropPlan
from isl_jax.data.store import open_dataset
from isl_jax.files import read_json
from isl_jax.inference.augmented import TTA
from isl_jax.inference.info import read_info
from isl_jax.inference.model import model_folder
from isl_jax.ingest.labels import read_label_image
from isl_jax.ingest.listing import stem_of_image
from isl_jax.launch.command import command
from isl_jax.launch.configuration import configure_jax
from isl_jax.locks import locked
from isl_jax.study.evaluate import evaluate_labels, evaluate_run
from isl_jax.study.records import (
    OTHERS,
    SWEEP,
    evaluation_folder,
    read_summary,
    read_sweep,
    recorded_crops,
    recorded_tta,
    told_change,
)
from isl_jax.study.scoring import Summary
from isl_jax.study.workdir import CONFIG

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; with --predictions, any.")
_PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder of label images to score instead.")
_SWEEP = flags.DEFINE_string("sweep", None, "Sweep whose report shall show --predictions.")
_NAME = flags.DEFINE_string("name", None, "What the report calls them; default: their folder.")
_DATA_ROOT = flags.DEFINE_string("data_root", None, "Prepared data, if not those of the run.")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "Fields to score.")
_CROPS = flags.DEFINE_integer(
    "crops_per_image", None, "Test crops of each field; default: as the run or sweep, else 5."
)
_CROP_SIZE = flags.DEFINE_integer(
    "crop_size", None, "Side of a test crop; default: as the run or sweep, else 512."
)
_CROP_SEED = flags.DEFINE_integer(
    "crop_seed",
    None,
    "Draws the crops, the same for runs to compare; default: as the sweep, else 0.",
)
_TTA = flags.DEFINE_enum(
    "tta",
    None,
    [str(number) for number in TTA],
    "Predict each image so often, flipped and turned; default: the model's.",
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace scores that were made otherwise.")
# What a run's config.json says of its crops.
_DATA_KEYS = {
    "root?": (str, None), "crop_size?": int, "crops_per_image?": int, "margin?": [float],
}  # fmt: skip


def main() -> int:
    """Evaluate what the flags name and print the scores."""
    if _PREDICTIONS.value:
        summary, workdir = _evaluate_labels(Path(_PREDICTIONS.value))
    else:
        summary, workdir = _evaluate_run()
    print(summary.table())
    print(evaluation_folder(workdir, summary.split))
    return 0


def _evaluate_labels(predictions: Path) -> tuple[Summary, Path]:
    root, sweep = None, None
    if _SWEEP.value:
        sweep = Path(_SWEEP.value)
        root = read_sweep(sweep)["data_root"]
        workdir = sweep / OTHERS / (_NAME.value or predictions.resolve().name)
    elif _WORKDIR.value:
        workdir = Path(_WORKDIR.value)
    else:
        raise ValueError("--predictions needs --sweep=FOLDER, or --workdir=FOLDER for the scores")
    root = _DATA_ROOT.value or root
    if not root:
        raise ValueError("--predictions needs --data_root=DATA, which holds the truth")
    dataset = open_dataset(root)
    plan = _plan(workdir, sweep, {})
    with locked(workdir, "choose another --workdir, or --name"):
        summary = evaluate_labels(
            predictions,
            workdir,
            dataset,
            plan,
            read=read_label_image,
            stem_of=stem_of_image,
            split=_SPLIT.value,
        )
    return summary, workdir


def _evaluate_run() -> tuple[Summary, Path]:
    if not _WORKDIR.value:
        raise ValueError("--workdir=FOLDER is needed; see --help")
    workdir = Path(_WORKDIR.value)
    path = workdir / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; name the --workdir of isl-train")
    remedy = "name the --workdir of another run"
    data = read_json(path, remedy=remedy, keys={"data": _DATA_KEYS})["data"]
    dataset = open_dataset(_DATA_ROOT.value or str(data.get("root")))
    # The run of a sweep is tested on the crops of the sweep.
    above = workdir.absolute().parents[:2]
    sweep = next((folder for folder in above if (folder / SWEEP).exists()), None)
    plan = _plan(workdir, sweep, data)
    configure_jax()
    before = read_summary(workdir, _SPLIT.value)
    tta = read_info(model_folder(workdir) / "model.json").tta
    tta = tta if _TTA.value is None else int(_TTA.value)
    if before is not None and recorded_tta(before) != tta and not _OVERWRITE.value:
        raise ValueError(
            f"{evaluation_folder(workdir, _SPLIT.value)}: belongs to scores with "
            f"--tta={recorded_tta(before)}, which cannot be compared with those of {tta}; give "
            "--overwrite to replace them all the same"
        )
    with locked(workdir, "choose another --workdir"):
        return evaluate_run(workdir, dataset, plan, split=_SPLIT.value, tta=tta), workdir


def _plan(workdir: Path, sweep: Path | None, data: dict[str, Any]) -> CropPlan:
    """The crops of the flags, else of the sweep, else of the run's `data` settings.

    Raises ValueError where scores on other crops would be replaced, or would stand beside them.
    """
    names = {"size": "crop_size", "per_image": "crops_per_image", "margin": "margin"}
    stored = {ours: data[name] for ours, name in names.items() if name in data}
    stored["margin"] = tuple(stored.get("margin", NO_MARGIN))
    of_sweep = recorded_crops(read_sweep(sweep)) if sweep else None
    if _SWEEP.value and of_sweep is None:
        raise ValueError(f"{sweep}/{SWEEP}: names no crops; run the sweep again to write them")
    given = {"size": _CROP_SIZE.value, "per_image": _CROPS.value, "seed": _CROP_SEED.value}
    plan = dataclasses.replace(
        of_sweep or CropPlan(**stored), **{k: v for k, v in given.items() if v is not None}
    )
    before = recorded_crops(read_summary(workdir, _SPLIT.value))
    if before is None and _SPLIT.value == "test":
        before = of_sweep
    if before not in (None, plan) and not _OVERWRITE.value:
        raise ValueError(
            f"{evaluation_folder(workdir, _SPLIT.value)}: belongs to scores on other crops "
            f"({told_change(before, plan)}), which cannot be compared with these; give "
            "--overwrite to score on the new crops all the same"
        )
    return plan


run = command(main)

if __name__ == "__main__":
    run()
