"""What a run leaves: recorded metrics, scores by image, their summary, predicted maps."""

import contextlib
import csv
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from isl_jax.inference.model import Prediction

Row = dict[str, Any]

# What a row says besides scores: which image it is about.
ID_COLUMNS = ("field", "top", "left", "size")
SUMMARY = "summary.json"
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


@contextlib.contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Give a draft folder that takes the place of `folder` once everything in it is written.

    After an error the draft is gone and `folder` as it was.
    """
    draft = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
    except BaseException:
        shutil.rmtree(draft)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


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


def read_summary(workdir: Path) -> dict[str, Any] | None:
    """Return `summary.json` of a run, None when it has not been evaluated."""
    path = evaluation_folder(workdir) / SUMMARY
    return json.loads(path.read_text()) if path.exists() else None


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Lines of a run's `metrics.jsonl`, as far as they were recorded."""
    path = workdir / "metrics.jsonl"
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # the last line of a killed run may be cut
    return found


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
