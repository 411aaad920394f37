"""Turn raw microscope files into a prepared data set that training maps into memory.

Files named as the paper's data sets:
  isl-prepare --source=RAW --layout=dataset1 --out=DATA
Any folder of <field>_<channel>.tif or .png, the phase image standing in for three input channels:
  isl-prepare --source=RAW --layout=folder --inputs=phase,phase,phase --stain=nuclei \\
    --labels=cell_masks --out=DATA
Stacks: planes 1 and 2, every second plane, or a projection (max, mean, focus):
  --inputs='brightfield[1,2]'   --inputs='dic[::2]'   --stain=dapi:max
Look first, write nothing:
  isl-prepare --source=RAW --layout=folder --inputs=phase --dry_run
A layout of your own: a .py file with `layout = Layout(...)`, or the same keys as .json or .toml.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from tqdm import tqdm

from isl_jax.data import splits
from isl_jax.data.preparation import prepare
from isl_jax.ingest.checked import CheckedField, check_fields, recipe_of
from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.layouts import Layout, Role, parse_roles
from isl_jax.ingest.overview import ChannelOverview, look
from isl_jax.ingest.presets import PRESETS, load_layout
from isl_jax.launch.command import command
from isl_jax.task import STUDIES

_SOURCE = flags.DEFINE_string("source", None, "Folder with the raw files (searched recursively).")
_OUT = flags.DEFINE_string("out", None, "Folder to write; it must not exist.")
_LAYOUT = flags.DEFINE_string("layout", "folder", f"{', '.join(PRESETS)}, or a layout file.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what was matched and write nothing.")
_INPUTS = flags.DEFINE_string("inputs", None, "Input channels, comma-separated, in network order.")
_STAIN = flags.DEFINE_string("stain", None, "Stain channel; empty for none.")
_LABELS = flags.DEFINE_string("labels", None, "Label channels, the preferred one first.")
_PATTERN = flags.DEFINE_string("pattern", None, "File-name pattern instead of the layout's.")
_GROUP = flags.DEFINE_string("group", None, "Expression that finds the group in a field's name.")
_EXCLUDE = flags.DEFINE_string("exclude", None, "Leave out fields in whose name this is found.")
_STUDY = flags.DEFINE_enum("study", None, STUDIES, "What is segmented (default: the layout's).")
_PIXEL_SIZE = flags.DEFINE_float("pixel_size", None, "Pixel size of the raw images, µm.")
_BIN = flags.DEFINE_integer("bin", 1, "Average blocks of this many pixels squared.", lower_bound=1)
_STAIN_SCALE = flags.DEFINE_enum(
    "stain_scale", "percentile", ("percentile", "dtype"),
    "Stain to 0..1 by percentiles 0.1 and 99.9 of the training fields, or by the dtype's maximum.",
)  # fmt: skip
_TEST = flags.DEFINE_float("test", 0.2, "Fraction of the fields withheld for the test, by group.")
_VAL = flags.DEFINE_float("val", 0.1, "Fraction of the fields for validation, by group.")
_TEST_GROUPS = flags.DEFINE_list("test_groups", None, "Groups to withhold instead of a fraction.")
_VAL_GROUPS = flags.DEFINE_list("val_groups", None, "Groups to validate on (with --test_groups).")
_SPLIT_FILES = flags.DEFINE_string("split_files", None, "Folder with train.txt, val.txt, test.txt.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the split.")
_WORKERS = flags.DEFINE_integer("workers", 1, "Processes that convert fields.", lower_bound=1)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the folder --out if it exists.")


def main() -> int | None:
    """Match, check, convert; the dry run prints the table instead of converting."""
    if _SOURCE.value is None:
        raise ValueError("no --source: give the folder with the raw files")
    layout = _layout()
    fields, unmatched = match_files(Path(_SOURCE.value), layout, exclude=_EXCLUDE.value)
    split_of, split_record = _split({field.name: field.group for field in fields})
    if _DRY_RUN.value:
        return _dry_run(fields, unmatched, layout, split_of)
    if _OUT.value is None:
        raise ValueError("no --out: give the folder to write, or --dry_run to look only")
    out = Path(_OUT.value)
    if out.exists() and not _OVERWRITE.value:
        raise ValueError(f"{out}: exists already; choose another --out, or give --overwrite")
    with _bar("check", len(fields)) as bar:
        checked = check_fields(fields, layout, on_field=bar.update)
    recipe = recipe_of(
        layout,
        binning=_BIN.value,
        stain_scale=_STAIN_SCALE.value,
        source=str(Path(_SOURCE.value).resolve()),
        split=split_record,
    )
    with _bar("prepare", len(split_of)) as bar:
        prepare(checked, split_of, out, recipe, workers=_WORKERS.value, on_field=bar.update)
    _print_summary(out, checked, split_of, len(unmatched))
    return None


def _bar(name: str, total: int) -> tqdm:
    return tqdm(desc=name, total=total, unit="field", disable=None)  # no bar in log files


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
        ("pattern", _PATTERN), ("group", _GROUP), ("study", _STUDY), ("pixel_size", _PIXEL_SIZE)
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


_COLUMNS = (
    "field", "group", "split", "channel", "shape", "dtype", "planes", "range", "saturated", "empty",
    "files",
)  # fmt: skip


def _dry_run(fields, unmatched, layout: Layout, split_of: dict[str, str]) -> int:
    """Print the table of what was matched, all faults found, and the files left over."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    faults: list[str] = []
    with _bar("look", len(fields)) as bar:
        for field in fields:
            channels, found = look(field, layout)
            first = (field.name, field.group, split_of.get(field.name, "left out"))
            num_files = str(sum(map(len, field.files.values())))
            for number, channel in enumerate(channels):
                own = (first, num_files) if number == 0 else (("", "", ""), "")
                rows.append((*own[0], *_cells(channel), own[1]))
            faults += [f"fault: {line}" for line in found]
            bar.update()
    if not faults:
        try:
            check_fields(fields, layout)
        except ValueError as error:  # fields that are sound, but do not fit together
            faults.append(f"fault: {error}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    for line in [*faults, *(f"not used: {path}" for path in unmatched)]:
        print(line)
    return 1 if faults else 0


def _cells(channel: ChannelOverview) -> tuple[str, ...]:
    return (
        channel.channel,
        f"{channel.height}×{channel.width}",
        str(channel.dtype),
        str(channel.planes),
        f"{channel.low:g}..{channel.high:g}",
        "-" if channel.saturated is None else f"{100 * channel.saturated:.2f} %",
        str(channel.empty),
    )


def _print_summary(
    out: Path, checked: Sequence[CheckedField], split_of: dict[str, str], num_unmatched: int
) -> None:
    labelled = {field.name for field in checked if field.labels}
    print(f"{out}: {len(split_of)} fields, channels {', '.join(checked[0].channels)}")
    for split in splits.SPLITS:
        names = [name for name, value in split_of.items() if value == split]
        print(f"  {split}: {len(names)} fields, {len(labelled.intersection(names))} with labels")
    if num_unmatched:
        print(f"  {num_unmatched} image files were not used (--dry_run lists them)")


run = command(main)

if __name__ == "__main__":
    run()
