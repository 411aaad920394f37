"""Turn raw microscope files into a prepared data set that training maps into memory.

Files named as the paper's data sets:
  isl-prepare --source=RAW --layout=dataset1 --out=DATA
Any folder of <field>_<channel>.tif or .png, the phase image standing in for three input channels:
  isl-prepare --source=RAW --layout=folder --inputs=phase,phase,phase --stain=nuclei \\
    --labels=cell_masks --out=DATA
Stacks: planes 1 and 2, every second one, a projection (max, mean, focus):
  --inputs='brightfield[1,2]'   --inputs='dic[::2]'   --stain=dapi:max
A folder of isl-annotate with the masks drawn: its data set again, with the new labels:
  isl-prepare --source=TODO --out=DATA2
Look first, write nothing:
  isl-prepare --source=RAW --layout=folder --inputs=phase --dry_run
Some cells drawn, what is farther than 40 pixels from them unknown: --partial=40
A layout of your own: a .py file with `layout = Layout(...)`, or the same keys as .json or .toml.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from isl_jax.annotate.returned import is_annotation_folder
from isl_jax.data import splits
from isl_jax.data.normalisation import NORMALISATIONS
from isl_jax.data.partial import Partial
from isl_jax.data.preparation import prepare
from isl_jax.data.stain import STAIN_RULES
from isl_jax.data.store import open_dataset
from isl_jax.ingest.checked import CheckedField, check_fields, recipe_of
from isl_jax.ingest.discovery import check_labels_found, match_files
from isl_jax.ingest.images import AskForError
from isl_jax.ingest.layouts import Layout, Role, parse_roles
from isl_jax.ingest.overview import look
from isl_jax.ingest.presets import PRESETS, load_layout
from isl_jax.ingest.survey import Survey
from isl_jax.launch.command import command
from isl_jax.launch.returning import take_back
from isl_jax.launch.waiting import Waiting
from isl_jax.locks import locked
from isl_jax.task import STUDIES

_SOURCE = flags.DEFINE_string("source", None, "Folder with the raw files (searched recursively).")
_OUT = flags.DEFINE_string("out", None, "Folder to write; it must not exist.")
_LAYOUT = flags.DEFINE_string("layout", "folder", f"{', '.join(PRESETS)}, or a layout file.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what was matched and write nothing.")
_INPUTS = flags.DEFINE_string("inputs", None, "Input channels, comma-separated, in network order.")
_STAIN = flags.DEFINE_string("stain", None, "Stain channel; empty for none.")
_LABELS = flags.DEFINE_string("labels", None, "Label channels, the preferred one first.")
_IGNORE = flags.DEFINE_integer(
    "ignore", None, "Label of pixels that nobody has annotated, above all ids: 65535.",
    lower_bound=1,
)  # fmt: skip
_PARTIAL = flags.DEFINE_float(
    "partial", None, "Only some cells are drawn: unlabelled pixels farther than this from every "
    "labelled one are unknown (pixels of the raw image; about the width of a cell).",
)  # fmt: skip
_PARTIAL_FIELDS = flags.DEFINE_string("partial_fields", "", "Expression: fields of --partial.")
_PATTERN = flags.DEFINE_string("pattern", None, "File-name pattern instead of the layout's.")
_GROUP = flags.DEFINE_string("group", None, "Expression that finds the group in a field's name.")
_EXCLUDE = flags.DEFINE_string("exclude", None, "Leave out fields in whose name this is found.")
_STUDY = flags.DEFINE_enum("study", None, STUDIES, "What is segmented (default: the layout's).")
_PIXEL_SIZE = flags.DEFINE_float("pixel_size", None, "Pixel size of the raw images, µm.")
_BIN = flags.DEFINE_integer("bin", 1, "Average blocks of this many pixels squared.", lower_bound=1)
_NORMALISATION = flags.DEFINE_enum(
    "normalisation", None, tuple(NORMALISATIONS),
    "Input planes minus their background, or standardised as in the paper (default: flat; of the "
    "paper's layouts: standardise).",
)  # fmt: skip
_STAIN_SCALE = flags.DEFINE_enum(
    "stain_scale", None, STAIN_RULES,
    "Stain to a target by the signal of each field, by percentiles 0.1 and 99.9 of the training "
    "fields, or by the dtype's maximum (default: field; of the paper's layouts: percentile).",
)  # fmt: skip
_TEST = flags.DEFINE_float("test", 0.2, "Fraction of the fields withheld for the test, by group.")
_VAL = flags.DEFINE_float("val", 0.1, "Fraction of the fields for validation, by group.")
_TEST_GROUPS = flags.DEFINE_list("test_groups", None, "Groups to withhold instead of a fraction.")
_VAL_GROUPS = flags.DEFINE_list("val_groups", None, "Groups to validate on (with --test_groups).")
_SPLIT_FILES = flags.DEFINE_string("split_files", None, "Folder with train.txt, val.txt, test.txt.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the split.")
_WORKERS = flags.DEFINE_integer("workers", 1, "Processes that convert fields.", lower_bound=1)
_ROOT = flags.DEFINE_string("root", None, "Of a folder of isl-annotate: where its data set is now.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the folder --out if it exists.")

# Layouts of the paper's data sets, which are prepared as the paper says.
_PAPERS = ("dataset1", "dataset2")

_MOST_NAMES = 5  # in a line of the summary


def main() -> int | None:
    """Match, check, convert; the dry run prints the table instead of converting."""
    try:
        return _main()
    except AskForError as error:
        raise ValueError(_worded(error)) from error


def _main() -> int | None:
    if _SOURCE.value is None:
        raise ValueError("no --source: give the folder with the raw files")
    if is_annotation_folder(Path(_SOURCE.value)):
        mine = flags.FLAGS.get_key_flags_for_module(__name__)
        return take_back({flag.name: flag.value for flag in mine if flag.present})
    layout = _layout()
    source = Path(_SOURCE.value)
    fields, unmatched = match_files(source, layout, exclude=_EXCLUDE.value)
    check_labels_found(source, _LABELS.value or "", fields, unmatched)
    partial = _partial()
    split_of, split_record = _split({field.name: field.group for field in fields})
    if _DRY_RUN.value:
        return _dry_run(fields, unmatched, layout, split_of)
    if _OUT.value is None:
        raise ValueError("no --out: give the folder to write, or --dry_run to look only")
    out = Path(_OUT.value)
    with locked(out, "choose another --out", replaces=True):
        if out.exists() and not _OVERWRITE.value:
            raise ValueError(f"{out}: exists already; choose another --out, or give --overwrite")
        with Waiting("check", len(fields)) as bar:
            checked = check_fields(fields, layout, on_field=bar.update)
        recipe = recipe_of(
            layout,
            binning=_BIN.value,
            **_targets_and_inputs(),
            partial=partial,
            source=str(source.resolve()),
            split=split_record,
        )
        with Waiting("prepare", len(split_of)) as bar:
            prepare(checked, split_of, out, recipe, workers=_WORKERS.value, on_field=bar.update)
    _print_summary(out, checked, split_of, unmatched)
    return None


def _partial() -> Partial | None:
    if _PARTIAL.value is None:
        if _PARTIAL_FIELDS.value:
            raise ValueError("--partial_fields goes with --partial=MARGIN")
        return None
    return Partial(_PARTIAL.value, _PARTIAL_FIELDS.value)


def _targets_and_inputs() -> dict[str, Any]:
    """How stains are scaled and inputs normalised: by the flags, or else as the layout wants."""
    is_papers = _LAYOUT.value in _PAPERS
    kind = _NORMALISATION.value or ("standardise" if is_papers else "flat")
    rule = _STAIN_SCALE.value or ("percentile" if is_papers else "field")
    return {"normalisation": NORMALISATIONS[kind], "stain_scale": rule}


def _layout() -> Layout:
    layout = load_layout(_LAYOUT.value)
    changes: dict = {}
    if _INPUTS.value is not None:
        changes["inputs"] = parse_roles(_INPUTS.value)
    if _STAIN.value is not None:
        changes["stain"] = Role.parse(_STAIN.value) if _STAIN.value else None
    if _LABELS.value is not None:
        changes["labels"] = tuple(name for name in _LABELS.value.split(",") if name)
        changes["study"] = "nucleus" if _LABELS.value.startswith("nucle") else "cell"
    for key, flag in (
        ("pattern", _PATTERN), ("group", _GROUP), ("study", _STUDY), ("pixel_size", _PIXEL_SIZE),
        ("ignore", _IGNORE),
    ):  # fmt: skip
        if flag.value is not None:
            changes[key] = flag.value
    return dataclasses.replace(layout, **changes)


def _split(groups: dict[str, str]) -> tuple[dict[str, str], dict]:
    """Field → split, and the record of how it was decided."""
    if _SPLIT_FILES.value:
        split_of = splits.split_by_files(groups, Path(_SPLIT_FILES.value))
        return split_of, {"method": "files", "folder": _SPLIT_FILES.value}
    if _TEST_GROUPS.value:
        test, val = _TEST_GROUPS.value, _VAL_GROUPS.value or []
        split_of = splits.split_by_groups(groups, test=test, val=val)
        return split_of, {"method": "groups", "test": test, "val": val}
    fractions = {"test": _TEST.value, "val": _VAL.value, "seed": _SEED.value}
    return splits.split_by_fraction(groups, **fractions), {"method": "fraction", **fractions}


def _dry_run(fields, unmatched, layout: Layout, split_of: dict[str, str]) -> int:
    """Print the table of what was matched, all faults found, and the files left over."""
    survey = Survey(len(fields), layout.study)
    with Waiting("look", len(fields)) as bar:
        for field in fields:
            channels, faults = look(field, layout, word=_worded)
            survey.add(field, split_of.get(field.name, "left out"), channels, faults)
            bar.update()
    if not survey.faults:
        try:
            check_fields(fields, layout)
        except ValueError as error:  # fields that are sound, but do not fit together
            survey.faults.append(_worded(error))
    for line in survey.lines(unmatched):
        print(line)
    return 1 if survey.faults else 0


def _worded(error: Exception) -> str:
    """An error with the option of this command that asks for what is there."""
    is_option = isinstance(error, AskForError)
    return error.by(f"--{error.role}={error.value}") if is_option else str(error)


def _print_summary(
    out: Path, checked: Sequence[CheckedField], split_of: dict[str, str], unused: Sequence[Path]
) -> None:
    labelled = {field.name for field in checked if field.labels}
    print(f"{out}: {len(split_of)} fields, channels {', '.join(checked[0].channels)}")
    for split in splits.SPLITS:
        names = [name for name, value in split_of.items() if value == split]
        print(f"  {split}: {len(names)} fields, {len(labelled.intersection(names))} with labels")
    if not all(field.is_square for field in checked):
        print("  pixels are not square: the pixel size is that of a square of the same area")
    dataset = open_dataset(out)
    if partly := [item.name for item in dataset.fields if item.has_ignored]:
        print(f"  only partly annotated are {len(partly)} fields: {_some(partly)}")
    if dark := dataset.without_signal:
        print(f"  no stain signal in {len(dark)} fields, whose target is 0: {_some(dark)}")
        print("    (where the stain covers a whole field give --stain_scale=percentile)")
    if unused:
        names = _some([path.name for path in unused])
        print(f"  {len(unused)} image files were not used: {names} (--dry_run lists them)")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")


run = command(main)

if __name__ == "__main__":
    run()
