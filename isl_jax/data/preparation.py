"""Raw fields to a prepared data set: one field in memory at a time, in parallel, all or nothing."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.data.binning import bin_average, bin_labels
from isl_jax.data.description import DESCRIPTION, SCHEMA
from isl_jax.data.normalisation import measure, plane_statistics
from isl_jax.data.partial import split_ignored
from isl_jax.data.preview import PREVIEW, write_preview
from isl_jax.data.recipe import Recipe, SourceField
from isl_jax.data.stain import RELATIVE, StainRule, StainScale
from isl_jax.data.store import (
    BACKGROUND,
    FIELDS_DIR,
    IGNORED,
    INPUTS,
    LABELS,
    STAIN,
    open_dataset,
)
from isl_jax.files import read_json, resumed_whole, written_whole
from isl_jax.tabular import read_npy

PERCENTILES = (0.1, 1.0, 50.0, 99.0, 99.9)
_RECORD = "field.json"


def prepare(
    fields: Sequence[SourceField],
    split_of: Mapping[str, str],
    out: Path,
    recipe: Recipe,
    *,
    workers: int = 1,
    on_field: Callable[[], object] = lambda: None,
) -> Path:
    """Write the prepared data set `out` from the fields that `split_of` names a split for.

    Fields are converted in a folder beside `out`, which becomes `out`, in the place of what was
    there, when all is done: after an interruption the same call goes on where it stopped, after an
    input error nothing is left. `on_field` is called after each field.
    """
    out = Path(out)
    fields = [field for field in fields if field.name in split_of]
    with resumed_whole(out, _digest(fields, recipe)) as draft:
        folder = draft / FIELDS_DIR
        folder.mkdir(parents=True, exist_ok=True)
        try:
            entries = _convert(
                [(folder / field.name, field, recipe) for field in fields], workers, on_field
            )
            for entry in entries:
                entry["split"] = split_of[entry["name"]]
            scale = _stain_scale(folder, entries, fields[0].stain_dtype, recipe.stain_scale)
        except (ValueError, OSError, LookupError):
            shutil.rmtree(draft, ignore_errors=True)
            raise
        record = _description(fields, entries, scale, recipe, Counter(split_of.values()))
        (draft / DESCRIPTION).write_text(json.dumps(record, indent=1))
        write_preview(open_dataset(draft), draft / PREVIEW)
        # Away with what the conversion needed: its records, and drafts of one that was killed.
        for entry in entries:
            (folder / entry["name"] / _RECORD).unlink()
        for left in {path.name for path in folder.iterdir()}.difference(e["name"] for e in entries):
            shutil.rmtree(folder / left)
    return out


def _digest(fields: Sequence[SourceField], recipe: Recipe) -> str:
    """Tells an interrupted preparation of the same files and settings from any other."""
    stamps = [(field.name, field.stamp) for field in fields]
    made = (recipe.binning, recipe.normalisation.kind, recipe.stain_scale, recipe.partial)
    text = repr((recipe.layout, made, stamps))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _convert(tasks: list[tuple], workers: int, on_field: Callable[[], object]) -> list[dict]:
    entries = []
    if workers <= 1:
        for task in tasks:
            entries.append(_write_field(*task))
            on_field()
        return entries
    # spawn: forked children would inherit threads of whatever else runs in this process.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_write_field, *task) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
                on_field()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _write_field(folder: Path, field: SourceField, recipe: Recipe) -> dict[str, Any]:
    """Convert one field into `folder`, complete or not at all; returns its dataset.json entry."""
    record = folder / _RECORD
    if record.is_file():  # converted before an interruption
        return read_json(record, remedy=f"remove {folder}")
    inputs, stain, labels = field.load()
    ignored = None
    if labels is not None:
        partial = recipe.partial and recipe.partial.applies_to(field.name) and recipe.partial
        try:
            labels, ignored = split_ignored(labels, partial or None)
        except ValueError as error:
            raise ValueError(f"field {field.name!r} {error} ({_files(field)})") from None
    binning = recipe.binning
    if binning > 1:
        planes = np.ascontiguousarray(np.moveaxis(inputs, -1, 0))
        inputs = np.stack([bin_average(plane, binning) for plane in planes], axis=-1)
        stain = None if stain is None else bin_average(stain, binning)
        labels = None if labels is None else bin_labels(labels, binning)
        ignored = None if ignored is None else bin_labels(ignored, binning)
    entry = _describe(field, inputs, stain, labels)
    if ignored is not None:
        entry |= {"has_ignored": True, "ignored_share": round(float(ignored.mean()), 4)}
    background = None
    if recipe.normalisation.kind == "flat":
        levels = measure(recipe.normalisation, inputs)
        entry["input_spread"] = levels.spread.tolist()
        background = levels.background and levels.background.grid
    if recipe.stain_scale == "field" and stain is not None:
        scale = StainScale.from_field(stain)
        entry["stain_background"] = scale.low
        entry["stain_signal"] = scale.high if np.isfinite(scale.high) else None
    arrays = {
        INPUTS: inputs, STAIN: stain, LABELS: labels, IGNORED: ignored, BACKGROUND: background
    }  # fmt: skip
    with written_whole(folder) as draft:
        draft.mkdir()
        for name, array in arrays.items():
            if array is not None:
                np.save(draft / name, np.ascontiguousarray(array))
        (draft / _RECORD).write_text(json.dumps(entry))
    return entry


def _describe(
    field: SourceField, inputs: np.ndarray, stain: np.ndarray | None, labels: np.ndarray | None
) -> dict[str, Any]:
    """What dataset.json says about a field: shape, statistics of each plane, sources.

    ValueError that names the field and the channel for what is not finite.
    """
    statistics = [plane_statistics(inputs[..., c]) for c in range(inputs.shape[-1])]
    finite = dict(zip(field.channels, (np.isfinite(std) for _, std in statistics), strict=True))
    finite["the stain"] = stain is None or np.isfinite(stain).all()
    if not all(finite.values()):
        first = next(name for name, is_finite in finite.items() if not is_finite)
        raise ValueError(
            f"field {field.name!r}: {first} holds NaN or infinite values ({_files(field)}); "
            "repair the file, or leave the field out with --exclude"
        )
    return {
        "name": field.name,
        "group": field.group,
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
        "sources": dict(field.sources),
    }


def _files(field: SourceField) -> str:
    values = field.sources.values()
    flat = (str(f) for value in values for f in (value if isinstance(value, list) else [value]))
    return ", ".join(list(flat)[:4])


def _stain_scale(
    folder: Path, entries: list[dict], dtype: np.dtype | None, rule: StainRule
) -> StainScale:
    """The scale over all training fields; 0..1 of nothing where the data set has no stain."""
    if dtype is None:
        return StainScale(0.0, 1.0)
    if rule == "field":
        return RELATIVE
    if rule == "dtype":
        return StainScale.from_dtype(dtype)
    names = [entry["name"] for entry in entries if entry["split"] == "train"]
    return StainScale.from_percentiles(
        read_npy(folder / name / STAIN, remedy=f"remove {folder}") for name in names
    )


def _description(
    fields: Sequence[SourceField],
    entries: list[dict],
    scale: StainScale,
    recipe: Recipe,
    counts: Mapping[str, int],
) -> dict[str, Any]:
    """Content of dataset.json."""
    sizes = {field.pixel_size * recipe.binning for field in fields if field.pixel_size}
    return {
        "schema": SCHEMA,
        "study": recipe.study,
        "channels": list(fields[0].channels),
        "stain": recipe.stain,
        "stain_scale": {**asdict(scale), "rule": recipe.stain_scale},
        "normalisation": asdict(recipe.normalisation),
        "pixel_size": sizes.pop() if len(sizes) == 1 else None,
        "binning": recipe.binning,
        "partial": recipe.partial and asdict(recipe.partial),
        "split": {**(recipe.split or {}), "counts": dict(counts)},
        "source": recipe.source,
        "layout": dict(recipe.layout or {}),
        "percentiles": PERCENTILES,
        "fields": entries,
    }
