"""What a run leaves: recorded metrics, scores by image, their summary, predicted maps."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from isl_jax.data.crops import CropPlan
from isl_jax.files import read_json, read_json_lines
from isl_jax.inference.model import Prediction

Row = dict[str, Any]

# What a row says besides scores: which image it is about.
ID_COLUMNS = ("field", "top", "left", "size")
SUMMARY = "summary.json"
# What a sweep is about, in its folder.
SWEEP = "sweep.json"
# The origin of weights that everything else is compared with.
ISL = "isl"
# Folder of a sweep with scores of other programs' label images, one folder a program.
OTHERS = "others"


def run_name(init: str, n: int, seed: int) -> str:
    """Folder of one run below `runs/`."""
    return f"{init}_n{n}_seed{seed}"


def evaluation_folder(workdir: Path, split: str = "test") -> Path:
    """Where the scores of a run lie; validation scores never pass for test scores."""
    return workdir / ("evaluation" if split == "test" else f"evaluation_{split}")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that share their columns as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else list(ID_COLUMNS))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[Row]:
    """Read rows of `write_rows`: `field` a string, every other value a number."""
    with path.open(newline="") as file:
        return [
            {name: value if name == "field" else float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def read_summary(workdir: Path, split: str = "test") -> dict[str, Any] | None:
    """Return `summary.json` of a run, None when it has not been evaluated."""
    path = evaluation_folder(workdir, split) / SUMMARY
    return read_json(path, remedy="evaluate again") if path.exists() else None


def read_sweep(workdir: Path) -> dict[str, Any]:
    """Return `sweep.json` of a sweep; FileNotFoundError or ValueError if there is none."""
    path = workdir / SWEEP
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; name the --workdir of isl-sweep")
    return read_json(path, remedy="run the sweep again to write it")


def recorded_crops(stored: Mapping[str, Any] | None) -> CropPlan | None:
    """The crops that a `summary.json` or `sweep.json` names; None when it names none."""
    crops = (stored or {}).get("test_crops")
    return CropPlan(**crops | {"margin": tuple(crops["margin"])}) if crops else None


def told_change(before: CropPlan, now: CropPlan) -> str:
    """`seed was 0, now 7`: how two plans differ."""
    pairs = {name: (value, getattr(now, name)) for name, value in vars(before).items()}
    return ", ".join(f"{name} was {a}, now {b}" for name, (a, b) in pairs.items() if a != b)


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Lines of a run's `metrics.jsonl`, as far as they were recorded."""
    return read_json_lines(workdir / "metrics.jsonl")


def save_prediction(folder: Path, name: str, prediction: Prediction) -> None:
    """Write what a model predicted of a field as `<name>_{stain,probability,distance,labels}.tif`.

    Maps are float32 rounded to half precision, which an eye cannot tell and which halves the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("stain", "probability", "distance"):
        values = getattr(prediction, kind)
        if values is not None:
            rounded = np.asarray(values, np.float16).astype(np.float32)
            tifffile.imwrite(
                folder / f"{name}_{kind}.tif", rounded, compression="zlib", predictor=3
            )
    if prediction.labels is not None:
        labels = np.asarray(prediction.labels)
        dtype = np.uint16 if labels.max(initial=0) < 2**16 else np.uint32
        tifffile.imwrite(folder / f"{name}_labels.tif", labels.astype(dtype), compression="zlib")


def read_prediction(workdir: Path, name: str, kind: str) -> np.ndarray | None:
    """One predicted map `[H, W]` of a field, None when there is none."""
    path = evaluation_folder(workdir) / "predictions" / f"{name}_{kind}.tif"
    return tifffile.imread(path) if path.exists() else None
