"""Score a trained run on the withheld fields: PCC, IoU or mAP over crops and over whole fields.

    isl-evaluate --workdir=W1
    isl-evaluate --predictions=CELLPOSE_MASKS --sweep=S
    isl-evaluate --predictions=CELLPOSE_MASKS --data_root=DATA --workdir=W2

Writes evaluation/crops.csv, evaluation/fields.csv, evaluation/summary.json and the predicted maps
of each field into the workdir. With --predictions, label images of another program, called after
the fields (`<field>.tif`, `<field>_cp_masks.png`), are scored by the same code against the same
truth; with --sweep on the crops of that sweep, whose report then shows them beside its own runs.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags

from isl_jax.data.crops import NO_MARGIN
from isl_jax.data.store import open_dataset
from isl_jax.launch.command import command
from isl_jax.launch.configuration import configure_jax
from isl_jax.report.reading import read_description
from isl_jax.study.evaluate import evaluate_labels, evaluate_run
from isl_jax.study.records import OTHERS, evaluation_folder
from isl_jax.study.scoring import EvaluationCrops, Summary

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


def _of_run(workdir: Path) -> tuple[str | None, dict[str, Any]]:
    """Data of a trained run, and the crops that a sweep would test it on."""
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; name the --workdir of isl-train")
    data = json.loads(path.read_text())["data"]
    crops = {"size": data.get("crop_size"), "per_image": data.get("crops_per_image")}
    return data.get("root"), crops | {"margin": tuple(data.get("margin", NO_MARGIN))}


def _of_sweep(workdir: Path) -> tuple[str, dict[str, Any]]:
    """Data and test crops of a sweep."""
    description = read_description(workdir)
    crops = description.get("test_crops")
    if crops is None:
        raise ValueError(f"{workdir}/sweep.json: names no crops; run the sweep again to write them")
    return description["data_root"], crops | {"margin": tuple(crops["margin"])}


def _evaluate_labels(predictions: Path) -> tuple[Summary, Path]:
    root, crops, workdir = None, {}, _WORKDIR.value and Path(_WORKDIR.value)
    if _SWEEP.value:
        root, crops = _of_sweep(Path(_SWEEP.value))
        workdir = Path(_SWEEP.value) / OTHERS / (_NAME.value or predictions.resolve().name)
    elif not workdir:
        raise ValueError("--predictions needs --sweep=FOLDER, or --workdir=FOLDER for the scores")
    root = _DATA_ROOT.value or root
    if not root:
        raise ValueError("--predictions needs --data_root=DATA, which holds the truth")
    dataset = open_dataset(root)
    return evaluate_labels(
        predictions, workdir, dataset, _crops(crops), split=_SPLIT.value
    ), workdir


def _evaluate_run() -> tuple[Summary, Path]:
    if not _WORKDIR.value:
        raise ValueError("--workdir=FOLDER is needed; see --help")
    workdir = Path(_WORKDIR.value)
    root, crops = _of_run(workdir)
    dataset = open_dataset(_DATA_ROOT.value or str(root))
    configure_jax()
    return evaluate_run(workdir, dataset, _crops(crops), split=_SPLIT.value), workdir


def _crops(stored: dict[str, Any]) -> EvaluationCrops:
    given: dict[str, Any] = {
        "size": _CROP_SIZE.value,
        "per_image": _CROPS.value,
        "seed": _CROP_SEED.value,
    }
    values = stored | {name: value for name, value in given.items() if value is not None}
    return EvaluationCrops(**{name: value for name, value in values.items() if value is not None})


def main() -> int:
    """Evaluate what the flags name and print the scores."""
    if _PREDICTIONS.value:
        summary, workdir = _evaluate_labels(Path(_PREDICTIONS.value))
    else:
        summary, workdir = _evaluate_run()
    print(summary.table())
    print(evaluation_folder(workdir, summary.split))
    return 0


run = command(main)

if __name__ == "__main__":
    run()
