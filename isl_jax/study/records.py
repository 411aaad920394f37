"""What a run leaves: recorded metrics, scores by image, their summary, predicted maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from isl_jax.data.crops import CropPlan
from isl_jax.files import read_json, read_json_lines
from isl_jax.inference.model import Prediction
from isl_jax.metrics import defined
from isl_jax.tabular import read_csv, write_csv

Row = dict[str, Any]

# What a row says besides scores: which image it is about.
ID_COLUMNS = ("field", "top", "left", "size")
SUMMARY = "summary.json"
# What a sweep is about, in its folder.
SWEEP = "sweep.json"
# The origin of weights that everything else is compared with.
ISL = "isl"
# What their JSON files must hold.
_SCORE = {"mean": (float, None), "std": (float, None), "count": int}
_CROPS = {"size": int, "per_image": int, "margin": [float], "seed": int}
_SUMMARY = {
    "metric": str, "crops": _SCORE, "fields": _SCORE, "test_crops?": (None, _CROPS),
    "tta?": int,
}  # fmt: skip
_SWEEP = {
    "study": str, "n": [int], "inits": [str], "seeds": [int], "data_root": str,
    "arms?": [str], "head?": str,
    "test_crops?": (None, _CROPS), "imagenet_stand_in?": (None, {"reason": (str, None)}),
}  # fmt: skip
# Folder of a sweep with scores of other programs' label images, one folder a program.
OTHERS = "others"


def control_of(init: str) -> str:
    """The arm that starts from `init` and carries the head of the ISL arm: the control."""
    return f"{init}-head"


def run_name(arm: str, n: int, seed: int) -> str:
    """Folder of one run below `runs/`."""
    return f"{arm}_n{n}_seed{seed}"


def evaluation_folder(workdir: Path, split: str = "test") -> Path:
    """Where the scores of a run lie; validation scores never pass for test scores."""
    return workdir / ("evaluation" if split == "test" else f"evaluation_{split}")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that share their columns as CSV."""
    columns = list(rows[0]) if rows else list(ID_COLUMNS)
    write_csv(path, columns, ([row[name] for name in columns] for row in rows))


def read_rows(path: Path, over: str = "", summary: Mapping[str, Any] | None = None) -> list[Row]:
    """Read rows of `write_rows`: `field` a string, every other value a number.

    With the run's `summary`, they are as many as it says there are `over` crops or fields.
    """
    needed = [summary["metric"]] if summary else []
    rows = read_csv(path, remedy="evaluate again", text=["field"], needed=needed)
    if summary and len(defined([row[needed[0]] for row in rows])) != summary[over]["count"]:
        raise ValueError(
            f"{path}: damaged ({len(rows)} rows, {SUMMARY} tells of {summary[over]['count']}); "
            "evaluate again"
        )
    return rows


def read_summary(workdir: Path, split: str = "test") -> dict[str, Any] | None:
    """Return `summary.json` of a run, None when it has not been evaluated."""
    path = evaluation_folder(workdir, split) / SUMMARY
    return read_json(path, remedy="evaluate again", keys=_SUMMARY) if path.exists() else None


def read_sweep(workdir: Path) -> dict[str, Any]:
    """Return `sweep.json` of a sweep; FileNotFoundError or ValueError if there is none."""
    path = workdir / SWEEP
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; name the --workdir of isl-sweep")
    return read_json(path, remedy="run the sweep again to write it", keys=_SWEEP)


def recorded_crops(stored: Mapping[str, Any] | None) -> CropPlan | None:
    """The crops that a `summary.json` or `sweep.json` names; None when it names none."""
    crops = (stored or {}).get("test_crops")
    return CropPlan(**crops | {"margin": tuple(crops["margin"])}) if crops else None


def recorded_tta(summary: Mapping[str, Any]) -> int:
    """How often each image of a `summary.json` was predicted; once in earlier versions."""
    return summary.get("tta", 1)


def told_change(before: CropPlan, now: CropPlan) -> str:
    """`seed was 0, now 7`: how two plans differ."""
    pairs = {name: (value, getattr(now, name)) for name, value in vars(before).items()}
    return ", ".join(f"{name} was {a}, now {b}" for name, (a, b) in pairs.items() if a != b)


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Lines of a run's `metrics.jsonl`, as far as they were recorded."""
    return read_json_lines(workdir / "metrics.jsonl", {"step": int})


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


def read_prediction(
    workdir: Path, name: str, kind: str, shape: tuple[int, int]
) -> np.ndarray | None:
    """One predicted map of a field of `shape` (H, W), None when there is none."""
    path = evaluation_folder(workdir) / "predictions" / f"{name}_{kind}.tif"
    if not path.exists():
        return None
    try:
        with tifffile.TiffFile(path) as file:
            found = file.pages.first.shape
            if found == shape:
                return file.asarray(key=0)
    except Exception as error:  # whatever a damaged file makes the parser raise
        raise ValueError(f"{path}: damaged ({error}); evaluate again") from error
    raise ValueError(f"{path}: is of shape {found}, the field of {shape}; evaluate again")
