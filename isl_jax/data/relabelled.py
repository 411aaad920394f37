"""A prepared data set once more, with labels that it did not have: all other arrays are shared."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from isl_jax.data.description import DESCRIPTION, REMEDY
from isl_jax.data.partial import split_ignored
from isl_jax.data.preview import PREVIEW, write_preview
from isl_jax.data.store import FIELDS_DIR, IGNORED, LABELS, Dataset, open_dataset
from isl_jax.files import read_json, written_whole


def with_labels(
    dataset: Dataset, labels: Mapping[str, np.ndarray], out: Path, *, source: str
) -> None:
    """Write `out`: the data set with `labels`, field → int32 [H, W], 0 background, ignored below 0.

    Splits, scales and statistics stay. Files are hard links where the disk allows: no file of a
    data set is ever changed in place. `source`, where the labels are from, is recorded. Raises
    ValueError, before anything is written, for a field that is not there, has labels already, or is
    of another size: labels are never overwritten.
    """
    for name, image in labels.items():
        field = dataset.field(name)
        if field.has_labels:
            raise ValueError(
                f"{dataset.root}: field {name!r} has labels already, which are never overwritten; "
                "use the data set that the field was taken from"
            )
        if image.shape != (field.height, field.width):
            raise ValueError(
                f"{dataset.root}: field {name!r} is {field.height} × {field.width} pixels, its new "
                f"labels are {image.shape[0]} × {image.shape[1]}"
            )
    record = read_json(dataset.root / DESCRIPTION, remedy=REMEDY)
    for entry in record["fields"]:
        if entry["name"] in labels:
            image = labels[entry["name"]]
            entry |= {"has_labels": True, "num_labels": len(np.unique(image[image > 0]))}
            entry["has_ignored"] = bool((image < 0).any())
    annotated = record.get("annotated", [])
    record["annotated"] = [*annotated, {"source": source, "fields": sorted(labels)}]
    with written_whole(out) as draft:
        draft.mkdir(parents=True)
        for field in dataset.fields:
            folder = draft / FIELDS_DIR / field.name
            folder.mkdir(parents=True)
            for path in (dataset.root / FIELDS_DIR / field.name).glob("*.npy"):
                _link(path, folder / path.name)
            if field.name in labels:
                ids, ignored = split_ignored(labels[field.name], None)
                np.save(folder / LABELS, np.ascontiguousarray(ids, np.int32))
                if ignored is not None:
                    np.save(folder / IGNORED, ignored)
        (draft / DESCRIPTION).write_text(json.dumps(record, indent=1))
        write_preview(open_dataset(draft), draft / PREVIEW)


def _link(path: Path, new: Path) -> None:
    try:
        os.link(path, new)
    except OSError:  # another disk, or one without links
        shutil.copy2(path, new)
