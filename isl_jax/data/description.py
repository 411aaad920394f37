"""What `dataset.json` says about a prepared data set: its schema, and what it must hold."""

from pathlib import Path
from typing import Any

from isl_jax.files import misfit, read_json

# 2: `normalisation`, and stains scaled by field; data sets of schema 1 have neither.
SCHEMA = 2
READABLE = (1, SCHEMA)
DESCRIPTION = "dataset.json"
REMEDY = "prepare the data set again"
# What dataset.json must hold.
_FIELD_KEYS = {
    "name": str, "group": str, "split": str, "height": int, "width": int, "has_stain": bool,
    "has_labels": bool, "input_mean": [float], "input_std": [float],
    "input_spread?": ([float], None), "stain_background?": (float, None),
    "stain_signal?": (float, None), "has_ignored?": bool,
    "has_drafts?": bool,
}  # fmt: skip
_KEYS = {
    "study": str, "channels": [str], "stain": (str, None), "pixel_size": (float, None),
    "binning?": int, "stain_scale": {"low": float, "high": float, "rule?": str},
    "normalisation?": (dict, None), "fields": [_FIELD_KEYS],
}  # fmt: skip


def read_description(root: Path) -> dict[str, Any]:
    """Content of `root/dataset.json`.

    Raises FileNotFoundError or ValueError in one line if there is none, it is damaged, or was
    written by a newer version.
    """
    path = root / DESCRIPTION
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; make it with isl-prepare --out={root}")
    if not path.is_file():
        raise FileNotFoundError(
            f"{root}: is not a prepared data set (no {DESCRIPTION}); make one with isl-prepare"
        )
    record = read_json(path, remedy=REMEDY)
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise ValueError(f"{path}: has schema {schema}, this version reads {known}; {REMEDY}")
    told = misfit(record, _KEYS) or _mismatch(record)
    if told:
        raise ValueError(f"{path}: damaged ({told}); {REMEDY}")
    return record


def _mismatch(record: dict[str, Any]) -> str | None:
    """What does not fit together: names of fields are those of folders, each its own."""
    names, count = [entry["name"] for entry in record["fields"]], len(record["channels"])
    for entry in record["fields"]:
        name = entry["name"]
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            return f"the field {name!r} is no name of a folder"
        if len(entry["input_mean"]) != count or len(entry["input_std"]) != count:
            return f"the field {name!r} has not {count} channels"
        if min(entry["height"], entry["width"]) < 1:
            return f"the field {name!r} has no pixels"
    return None if len(set(names)) == len(names) else "two fields of one name"
