"""The folder that goes to the annotator and comes back: images, drafts, and what to do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from isl_jax.annotate.drafting import Quality
from isl_jax.annotate.readme import readme
from isl_jax.annotate.returned import README, RECORD, SCHEMA, digest_of
from isl_jax.annotate.sheet import write_sheet
from isl_jax.data.appearance import distinct_planes
from isl_jax.data.store import Dataset
from isl_jax.files import write_json, written_whole
from isl_jax.study.choice import Suggestion
from isl_jax.tabular import write_csv

_SHEET, _LIST = "index.html", "list.csv"


def write_folder(
    out: Path,
    dataset: Dataset,
    suggestion: Suggestion,
    drafts: Mapping[str, tuple[np.ndarray, Quality]],
    count: int,
) -> None:
    """Write the first `count` fields of the order: `<field>_image.tif`, `_stain`, `_draft`.

    Beside them `README.md`, `list.csv`, `index.html` and `annotate.json`. Images are those of the
    prepared data set, in its pixels and its raw values; inputs of several channels are a stack
    [C, H, W]. `out` appears whole or not at all, in the place of what was there.
    """
    chosen = [item.name for item in suggestion.order[:count]]
    with written_whole(out) as folder:
        folder.mkdir(parents=True)
        fields = []
        for name in chosen:
            planes = np.stack(distinct_planes(dataset.inputs(name)))
            _write(folder / f"{name}_image.tif", planes[0] if len(planes) == 1 else planes)
            if dataset.field(name).has_stain:
                _write(folder / f"{name}_stain.tif", np.asarray(dataset.stain_image(name)))
            digest = None
            if name in drafts:
                labels = drafts[name][0]
                dtype = np.uint16 if labels.max(initial=0) < 1 << 16 else np.uint32
                _write(folder / f"{name}_draft.tif", labels.astype(dtype))
                digest = digest_of(labels)
            height, width = planes.shape[1:]
            fields.append({"name": name, "height": height, "width": width, "draft": digest})
        write_json(
            folder / RECORD,
            {
                "schema": SCHEMA,
                "root": str(dataset.root.absolute()),
                "study": dataset.study,
                "fields": fields,
                "suggestion": suggestion.to_json(),
            },
        )
        write_csv(folder / _LIST, ("place", "field", "objects", "reason"), _rows(suggestion))
        write_sheet(folder / _SHEET, dataset, suggestion, drafts, count)
        (folder / README).write_text(readme(dataset, chosen, drafts), encoding="utf-8")


def _rows(suggestion: Suggestion) -> list[tuple[Any, ...]]:
    order = [
        (place, item.name, "" if item.objects is None else item.objects, item.reason)
        for place, item in enumerate(suggestion.order, start=1)
    ]
    return order + [("", name, "", f"left out: {why}") for name, why in suggestion.excluded.items()]


def _write(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, np.ascontiguousarray(image), compression="zlib", metadata=None)
