"""Score a trained run on the withheld fields: PCC, IoU or mAP over crops and over whole fields.

    isl-evaluate --workdir=W1
    isl-evaluate --predictions=CELLPOSE_MASKS --data_root=DATA --workdir=W2

Writes evaluation/crops.csv, evaluation/fields.csv, evaluation/summary.json and the predicted maps
of each field into the workdir. The second form scores label images of another program, called after
the fields (`<field>.tif`, `<field>_cp_masks.png`), by the same code on the same crops.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags

from isl_jax.data.store import open_dataset
from isl_jax.launch.command import command
from isl_jax.launch.configuration import configure_jax
from isl_jax.study.evaluate import evaluate_labels, evaluate_run
from isl_jax.study.records import evaluation_folder

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; with --predictions, any.")
_PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder of label images to score instead.")
_DATA_ROOT = flags.DEFINE_string("data_root", None, "Prepared data, if not those of the run.")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "Fields to score.")
_CROPS = flags.DEFINE_integer("crops_per_image", 5, "Test crops of each field.", lower_bound=1)
_CROP_SIZE = flags.DEFINE_integer("crop_size", None, "Side of a test crop; default: the run's.")
_CROP_SEED = flags.DEFINE_integer("crop_seed", 0, "Draws the crops; the same for runs to compare.")


def _config(workdir: Path) -> dict[str, Any]:
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; name the --workdir of isl-train")
    return json.loads(path.read_text())


def main() -> int:
    """Evaluate what the flags name and print the scores."""
    if not _WORKDIR.value:
        raise ValueError("--workdir=FOLDER is needed; see --help")
    workdir = Path(_WORKDIR.value)
    config: dict[str, Any] = {} if _PREDICTIONS.value else _config(workdir)
    data = config.get("data", {})
    root = _DATA_ROOT.value or data.get("root")
    if not root:
        raise ValueError("--predictions needs --data_root=DATA, which holds the truth")
    configure_jax()
    options: dict[str, Any] = {
        "split": _SPLIT.value,
        "crops_per_image": _CROPS.value,
        "crop_size": _CROP_SIZE.value or data.get("crop_size", 512),
        "margin": tuple(data.get("margin", (0.0, 0.0, 0.0, 0.0))),
        "seed": _CROP_SEED.value,
    }
    dataset = open_dataset(root)
    if _PREDICTIONS.value:
        summary = evaluate_labels(Path(_PREDICTIONS.value), workdir, dataset, **options)
    else:
        summary = evaluate_run(workdir, dataset, **options)
    print(summary.table())
    print(evaluation_folder(workdir, summary.split))
    return 0


run = command(main)

if __name__ == "__main__":
    run()
