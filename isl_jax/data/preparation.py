"""Raw files to a prepared data set: one field in memory at a time, in parallel, all or nothing."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from isl_jax.data.normalisation import StainScale, plane_statistics
from isl_jax.data.preview import PREVIEW, write_preview
from isl_jax.data.store import (
    DESCRIPTION,
    FIELDS_DIR,
    INPUTS,
    LABELS,
    SCHEMA,
    STAIN,
    open_dataset,
)
from isl_jax.ingest.checks import CheckedField, load_field
from isl_jax.ingest.layouts import Layout

PERCENTILES = (0.1, 1.0, 50.0, 99.0, 99.9)
_RECORD = "field.json"


def write_field(folder: Path, checked: CheckedField, layout: Layout, binning: int) -> dict:
    """Convert one field into `folder`, complete or not at all; returns its dataset.json entry."""
    record = folder / _RECORD
    if record.is_file():  # converted before an interruption
        return json.loads(record.read_text())
    inputs, stain, labels = load_field(checked, layout, binning=binning)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, array in ((INPUTS, inputs), (STAIN, stain), (LABELS, labels)):
        if array is not None:
            np.save(partial / name, np.ascontiguousarray(array))
    entry = _describe(checked, inputs, stain, labels)
    (partial / _RECORD).write_text(json.dumps(entry))
    partial.rename(folder)
    return entry


def _describe(
    checked: CheckedField, inputs: np.ndarray, stain: np.ndarray | None, labels: np.ndarray | None
) -> dict:
    """What dataset.json says about a field: shape, statistics of each plane, sources."""
    statistics = [plane_statistics(inputs[..., c]) for c in range(inputs.shape[-1])]
    return {
        "name": checked.raw.name,
        "group": checked.raw.group,
        "height": inputs.shape[0],
        "width": inputs.shape[1],
        "has_stain": stain is not None,
        "has_labels": labels is not None,
        "num_labels": None if labels is None else len(np.setdiff1d(labels, 0)),
        "input_dtype": str(inputs.dtype),
        "input_mean": [mean for mean, _ in statistics],
        "input_std": [std for _, std in statistics],
        "input_percentiles": np.percentile(inputs, PERCENTILES, axis=(0, 1)).T.tolist(),
        "stain_dtype": None if stain is None else str(stain.dtype),
        "stain_percentiles": None if stain is None else np.percentile(stain, PERCENTILES).tolist(),
        "sources": {
            channel: [
                {"file": path.name, "bytes": _size(path)} for part in parts for path in part.paths
            ]
            for channel, parts in checked.raw.files.items()
        },
    }


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def prepare(
    checked: Sequence[CheckedField],
    layout: Layout,
    split_of: dict[str, str],
    out: Path,
    *,
    binning: int = 1,
    stain_scale: str = "percentile",
    source: str = "",
    split_record: dict | None = None,
    workers: int = 1,
    on_field: Callable[[], object] = lambda: None,
) -> Path:
    """Write the prepared data set `out` from checked fields that `split_of` names a split for.

    Fields are converted in a folder beside `out`, which becomes `out` when all is done: after an
    interruption the same call goes on where it stopped, after an input error nothing is left.
    `on_field` is called after each field.
    """
    out = Path(out)
    fields = [item for item in checked if item.raw.name in split_of]
    partial = out.with_name(f".{out.name}.{_digest(fields, layout, binning)}.partial")
    (partial / FIELDS_DIR).mkdir(parents=True, exist_ok=True)
    tasks = [(partial / FIELDS_DIR / item.raw.name, item, layout, binning) for item in fields]
    try:
        entries = _convert(tasks, workers, on_field)
        for entry in entries:
            entry["split"] = split_of[entry["name"]]
        scale = _stain_scale(partial, entries, fields, stain_scale)
    except (ValueError, OSError, LookupError):
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sizes = {item.pixel_size * binning for item in fields if item.pixel_size}
    record = {
        "schema": SCHEMA,
        "study": layout.study,
        "channels": list(fields[0].channels),
        "stain": layout.stain.channel if layout.stain else None,
        "stain_scale": {**asdict(scale), "rule": stain_scale},
        "pixel_size": sizes.pop() if len(sizes) == 1 else None,
        "binning": binning,
        "split": {**(split_record or {}), "counts": dict(Counter(split_of.values()))},
        "source": source,
        "layout": {
            "pattern": layout.pattern,
            "inputs": [str(role) for role in layout.inputs],
            "stain": str(layout.stain) if layout.stain else None,
            "labels": list(layout.labels),
            "group": layout.group,
        },
        "percentiles": PERCENTILES,
        "fields": entries,
    }
    (partial / DESCRIPTION).write_text(json.dumps(record, indent=1))
    write_preview(open_dataset(partial), partial / PREVIEW)
    for entry in entries:
        (partial / FIELDS_DIR / entry["name"] / _RECORD).unlink()
    partial.rename(out)
    return out


def _digest(fields: Sequence[CheckedField], layout: Layout, binning: int) -> str:
    """Tells an interrupted preparation of the same files and settings from any other."""
    parts = [part for item in fields for files in item.raw.files.values() for part in files]
    states = [(part, path.stat().st_mtime_ns) for part in parts for path in part.paths]
    return hashlib.sha256(repr((layout, binning, states)).encode()).hexdigest()[:12]


def _convert(tasks: list[tuple], workers: int, on_field: Callable[[], object]) -> list[dict]:
    entries = []
    if workers <= 1:
        for task in tasks:
            entries.append(write_field(*task))
            on_field()
        return entries
    # spawn: forked children would inherit threads of whatever else runs in this process.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(write_field, *task) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
                on_field()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _stain_scale(
    root: Path, entries: list[dict], fields: Sequence[CheckedField], rule: str
) -> StainScale:
    """The scale over all training fields; 0..1 of nothing where the data set has no stain."""
    dtype = fields[0].stain_dtype
    if dtype is None:
        return StainScale(0.0, 1.0)
    if rule == "dtype":
        return StainScale.from_dtype(dtype)
    names = [entry["name"] for entry in entries if entry["split"] == "train"]
    return StainScale.from_percentiles(
        np.load(root / FIELDS_DIR / name / STAIN, mmap_mode="r") for name in names
    )
