"""Choose which fields to annotate, and draft their labels from the stain.

The three fields that tell most about a prepared data set, in a folder ready for napari, Fiji or
Cellpose (images, stain, drafts, what to do, and a page that says why these):
  isl-annotate --root=DATA --count=3 --out=TODO
Compared by what a pretext network sees in them, instead of by statistics of the images:
  isl-annotate --root=DATA --count=3 --model=W0 --out=TODO
The order alone, nothing written:
  isl-annotate --root=DATA
With the masks drawn, the data set again with the new labels:
  isl-prepare --source=TODO --out=DATA2
Drafts of all stained fields into the data set itself, for a pretext on drafts:
  isl-annotate --root=DATA --drafts
A stain of whole cells is drafted much better from the nuclei: --nuclei names the channel of the raw
files that shows them, as isl-prepare does (--nuclei=w3Hoechst:max).
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from isl_jax.annotate.drafting import (
    METHODS,
    TABLE,
    Drafter,
    Quality,
    draft_fields,
    stained_fields,
    write_drafts,
)
from isl_jax.annotate.outgoing import write_folder
from isl_jax.annotate.returned import check_free
from isl_jax.data.binning import bin_average
from isl_jax.data.coverage import CHOICES
from isl_jax.data.description import DESCRIPTION, REMEDY
from isl_jax.data.splits import SPLITS
from isl_jax.data.stain import SHOWS, shown_by
from isl_jax.data.store import Dataset, open_dataset
from isl_jax.files import read_json
from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.fields import RawField
from isl_jax.ingest.layouts import Role, layout_from_options
from isl_jax.ingest.planes import read_role
from isl_jax.launch.command import command
from isl_jax.launch.configuration import configure_jax
from isl_jax.launch.waiting import Waiting
from isl_jax.locks import locked
from isl_jax.study.choice import Suggestion, drawn, suggest

_ROOT = flags.DEFINE_string("root", None, "Prepared data set.")
_OUT = flags.DEFINE_string("out", None, "Folder for the annotator; it must not exist.")
_COUNT = flags.DEFINE_integer("count", 3, "Fields to annotate.", lower_bound=1)
_MODEL = flags.DEFINE_string("model", None, "Pretext run whose encoder compares the fields.")
_CHOOSE = flags.DEFINE_enum(
    "choose", "suggested", CHOICES, "Suggested, or drawn at random (for test fields)."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of a random choice.")
_SPLIT = flags.DEFINE_enum("split", "train", SPLITS, "Of which split the fields are.")
_DRAFTS = flags.DEFINE_bool("drafts", False, "Write drafts of all stained fields into --root.")
_DRAFTER = flags.DEFINE_enum("drafter", "classical", METHODS, "What makes the drafts.")
_SHOWS = flags.DEFINE_enum("shows", None, SHOWS, "What the stain shows (default: by its name).")
_NUCLEI = flags.DEFINE_string(
    "nuclei", None, "Channel of the raw files with nuclei, for a stain of whole cells."
)
_WORKERS = flags.DEFINE_integer("workers", 1, "Processes that draft and compare.", lower_bound=1)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace a folder --out of this command that holds no masks."
)

# Lines of the order that are printed.
_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class RawNuclei:
    """Nuclear stains in the raw files that a data set was prepared from."""

    fields: dict[str, RawField]
    role: Role
    binning: int

    def __call__(self, name: str) -> np.ndarray | None:
        """Nuclear stain [H, W] in the pixels of the data set; None if the field has none."""
        field = self.fields.get(name)
        if field is None or self.role.channel not in field.files:
            return None
        plane = read_role(field, self.role)[0]
        return bin_average(plane, self.binning) if self.binning > 1 else plane


def main() -> None:
    """Choose, draft, and write what the flags ask for."""
    if _ROOT.value is None:
        raise ValueError("no --root: give the data set that isl-prepare wrote")
    dataset = open_dataset(_ROOT.value)
    if _DRAFTS.value:
        if _OUT.value:
            raise ValueError("--drafts writes into --root; leave out --out, or --drafts")
        _write_all_drafts(dataset)
        return
    out = Path(_OUT.value) if _OUT.value else None
    if out:
        check_free(out, overwrite=_OVERWRITE.value)
    candidates = [f for f in dataset.select(_SPLIT.value) if not f.has_labels]
    if len(candidates) < (_COUNT.value if out else 1):
        raise ValueError(
            f"{dataset.root}: has {len(candidates)} fields of --split={_SPLIT.value} without "
            f"labels, --count={_COUNT.value} was asked for"
        )
    drafter = _drafter(dataset) if out and dataset.stain else None
    suggestion = _suggestion(dataset, candidates)
    if out and len(suggestion.order) < _COUNT.value:
        told = "; ".join(f"{name}: {why}" for name, why in list(suggestion.excluded.items())[:3])
        raise ValueError(
            f"{dataset.root}: only {len(suggestion.order)} fields are fit to be annotated, "
            f"--count={_COUNT.value} was asked for ({told})"
        )
    _print(suggestion)
    if out:
        _write(dataset, suggestion, drafter, out)


def _suggestion(dataset: Dataset, candidates: list) -> Suggestion:
    if _CHOOSE.value == "random":
        return drawn(candidates, _SEED.value)
    if _MODEL.value:
        configure_jax()
    given = [f for f in dataset.select(_SPLIT.value) if f.has_labels]
    with Waiting("compare", len(candidates) + len(given)) as bar:
        return suggest(
            dataset,
            candidates,
            given=given,
            model=_MODEL.value,
            shows=_shows(dataset),
            workers=_WORKERS.value,
            on_field=bar.update,
        )


def _write(dataset: Dataset, suggestion: Suggestion, drafter: Drafter | None, out: Path) -> None:
    names = [item.name for item in suggestion.order[: _COUNT.value]]
    drafts = {}
    if drafter:
        stained = [name for name in names if dataset.field(name).has_stain]
        for name, labels, worth in draft_fields(dataset, stained, drafter, workers=_WORKERS.value):
            if worth.objects:
                drafts[name] = labels, worth
    with locked(out, "choose another --out", replaces=True):
        check_free(out, overwrite=_OVERWRITE.value)
        write_folder(out, dataset, suggestion, drafts, _COUNT.value)
    for name in names:
        print(f"  {name}: " + (_worth(drafts[name][1]) if name in drafts else "no draft"))
    print(f"{out}: {len(names)} fields; README.md says what to do, index.html shows them")


def _write_all_drafts(dataset: Dataset) -> None:
    drafter = _drafter(dataset)
    with locked(dataset.root, "wait"), Waiting("draft", len(stained_fields(dataset))) as bar:
        found = write_drafts(dataset, drafter, workers=_WORKERS.value, on_field=bar.update)
    words = [worth.word for worth in found.values()]
    told = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    print(f"{dataset.root}: drafts of {len(found)} fields, {told} ({TABLE} has each)")


def _drafter(dataset: Dataset) -> Drafter:
    stained_fields(dataset)
    shows = _shows(dataset)
    if _NUCLEI.value and shows == "nuclei":
        raise ValueError(
            f"--nuclei: the stain {dataset.stain!r} shows nuclei itself; leave it out, or give "
            "--shows=cells"
        )
    if _NUCLEI.value and _DRAFTER.value != "classical":
        raise ValueError("--nuclei is for --drafter=classical")
    nuclei = _raw_nuclei(dataset) if _NUCLEI.value else None
    by = "" if _SHOWS.value else " (by its name; --shows tells otherwise)"
    print(f"the stain {dataset.stain!r} shows {shows}{by}")
    method: Any = _DRAFTER.value
    return Drafter(method, shows, nuclei)


def _shows(dataset: Dataset) -> Any:
    return _SHOWS.value or shown_by(dataset.stain or "", dataset.study)


def _raw_nuclei(dataset: Dataset) -> RawNuclei:
    """Find the channel --nuclei among the raw files that the data set was prepared from."""
    record = read_json(dataset.root / DESCRIPTION, remedy=REMEDY)
    source, recorded = Path(record.get("source") or ""), record.get("layout") or {}
    if not source.is_dir() or "pattern" not in recorded:
        raise ValueError(
            f"--nuclei: the raw files of {dataset.root} are not at {source} any more; put them "
            "there, or prepare the data set again"
        )
    role = Role.parse(_NUCLEI.value or "")
    layout = layout_from_options(recorded, source=str(dataset.root / DESCRIPTION))
    layout = dataclasses.replace(layout, inputs=(*layout.inputs, role))
    fields = {f.name: f for f in match_files(source, layout)[0] if f.name in _names(dataset)}
    if not any(role.channel in field.files for field in fields.values()):
        raise ValueError(f"--nuclei: no field of {source} has a channel {role.channel!r}")
    return RawNuclei(fields, role, dataset.binning)


def _names(dataset: Dataset) -> set[str]:
    return {field.name for field in dataset.fields}


def _print(suggestion: Suggestion) -> None:
    print(f"order, by {suggestion.seen_by}:")
    for place, item in enumerate(suggestion.order[:_SHOWN], start=1):
        print(f"{place:4}  {item.name}: {item.reason}")
    if len(suggestion.order) > _SHOWN:
        print(f"      and {len(suggestion.order) - _SHOWN} more")
    for name, fault in suggestion.excluded.items():
        print(f"   –  {name}: left out, {fault}")


def _worth(worth: Quality) -> str:
    return (
        f"draft with {worth.objects} objects, {worth.word} ({worth.explained:.0%} of the signal in "
        f"them, {worth.unlikely:.0%} of unlikely size)"
    )


run = command(main)

if __name__ == "__main__":
    run()
