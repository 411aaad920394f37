"""Which training fields of a run are annotated: drawn by its seed, or in the suggested order."""

import functools
from pathlib import Path
from typing import Any

from isl_jax.data.coverage import annotated_subset
from isl_jax.data.store import Dataset, Field
from isl_jax.files import read_json, write_json
from isl_jax.study.choice import suggest
from isl_jax.study.settings import DataSettings

# The order and its reasons, in the folder of a run, and in that of a sweep for all of its runs.
SUGGESTION = "suggestion.json"
_NAMED = {"name": str, "reason": str}
_KEYS = {"root": str, "choose_with": (str, None), "order": [_NAMED], "excluded": dict}


def annotated_fields(
    data: DataSettings, dataset: Dataset, n: int, seed: int, record: Path
) -> tuple[tuple[Field, ...], dict[str, Any] | None]:
    """The n annotated fields, and for `suggested` what there is to record of the order.

    The candidates of a study are the training fields that have labels. Both choices are nested: the
    first n + 1 hold the first n. Fields with a fault come last in the suggested order, which is
    read from `record` where that is of the same fields and model, and made otherwise. Raises
    ValueError if there are fewer than n candidates.
    """
    drawn = annotated_subset(dataset, n, seed)
    if data.choose == "random":
        return drawn, None
    candidates = dataset.select("train", labels=True)
    found = _stored(data, record, candidates)
    if found is None:
        found = {"root": data.root, "choose_with": data.choose_with}
        found |= _suggested(dataset, data.choose_with)
    names = [item["name"] for item in found["order"]] + list(found["excluded"])
    fields = tuple(dataset.field(name) for name in names[:n])
    if faulty := [f"{f.name} ({found['excluded'][f.name]})" for f in fields[len(found["order"]) :]]:
        print(f"no other field is left for N = {n} than {', '.join(faulty)}")
    return fields, found


def write_suggestion(found: dict[str, Any] | None, *paths: Path) -> None:
    """Record an order of `annotated_fields`, if there is one."""
    for path in dict.fromkeys(paths):
        if found is not None:
            write_json(path, found)


def _stored(
    data: DataSettings, record: Path, candidates: tuple[Field, ...]
) -> dict[str, Any] | None:
    if not record.exists():
        return None
    found = read_json(record, remedy="delete it to choose again", keys=_KEYS)
    names = {item["name"] for item in found["order"]} | found["excluded"].keys()
    same = (found["root"], found["choose_with"]) == (data.root, data.choose_with)
    return found if same and names == {field.name for field in candidates} else None


@functools.lru_cache(maxsize=4)  # several runs of a sweep in one process
def _suggested(dataset: Dataset, model: str | None) -> dict[str, Any]:
    return suggest(dataset, dataset.select("train", labels=True), model=model).to_json()
