"""Which fields train, validate and test: whole groups only, reproducible by seed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

SPLITS = ("train", "val", "test")


def split_by_fraction(
    groups: Mapping[str, str], *, test: float, val: float, seed: int
) -> dict[str, str]:
    """Draw whole groups into test and val until each holds its fraction of the fields.

    groups: field → group. Returns field → "train" | "val" | "test". The test set is drawn first
    and does not depend on `val`. Raises ValueError if there are too few groups.
    """
    if not (0 <= test < 1 and 0 <= val < 1 and test + val < 1):
        raise ValueError(f"fractions test={test:g} and val={val:g} must be ≥ 0 and leave a rest")
    names = sorted(set(groups.values()))
    needed = 1 + (test > 0) + (val > 0)
    if len(names) < needed:
        raise ValueError(
            f"{len(names)} group{'s' * (len(names) != 1)} of fields cannot be split into {needed} "
            "sets: set --test=0 or --val=0, or name smaller groups with --group"
        )
    order = [names[k] for k in np.random.default_rng(seed).permutation(len(names))]
    size = {name: sum(group == name for group in groups.values()) for name in names}
    split_of: dict[str, str] = {}
    for split, fraction in (("test", test), ("val", val)):
        held, reserve = 0, needed - 1 if split == "test" else 1
        while fraction > 0 and len(order) > reserve and held < round(fraction * len(groups)):
            held += size[order[0]]
            split_of[order.pop(0)] = split
        if fraction > 0 and held == 0:  # a fraction of less than half a field still means one group
            split_of[order.pop(0)] = split
    return {field: split_of.get(group, "train") for field, group in groups.items()}


def split_by_groups(
    groups: Mapping[str, str], *, test: Sequence[str], val: Sequence[str] = ()
) -> dict[str, str]:
    """The named groups test and validate, all others train; ValueError for unknown groups."""
    known = set(groups.values())
    for name in [*test, *val]:
        if name not in known:
            raise ValueError(f"group {name!r} does not exist; groups are {_some(known)}")
    both = set(test) & set(val)
    if both:
        raise ValueError(f"group {min(both)!r} is named for test and for val; name it once")
    if known <= {*test, *val}:
        raise ValueError("no group is left to train on: name fewer groups for test and val")
    return {
        field: "test" if group in test else "val" if group in val else "train"
        for field, group in groups.items()
    }


def split_by_files(groups: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Read train.txt, val.txt and test.txt, one field name a line (val.txt may be absent).

    Fields named nowhere are left out of the result. Raises ValueError for a field that is unknown
    or named twice, and for a group that stands in two sets.
    """
    folder = Path(folder)
    split_of: dict[str, str] = {}
    for split in SPLITS:
        path = folder / f"{split}.txt"
        if not path.is_file():
            if split == "val":
                continue
            raise FileNotFoundError(f"{path}: no such file; it lists one field name a line")
        for line in _text(path).splitlines():
            name = line.strip()
            if not name or name.startswith("#"):
                continue
            if name not in groups:
                raise ValueError(
                    f"{path}: field {name!r} does not exist; there are {_some(groups)}"
                )
            if split_of.setdefault(name, split) != split:
                raise ValueError(f"{path}: field {name!r} is also in {split_of[name]}.txt")
    if "train" not in split_of.values():
        raise ValueError(f"{folder / 'train.txt'}: names no field")
    check_disjoint({name: groups[name] for name in split_of}, split_of)
    return split_of


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text in UTF-8 ({error}); save it as UTF-8") from None


def check_disjoint(groups: Mapping[str, str], split_of: Mapping[str, str]) -> None:
    """ValueError that names a group whose fields stand in more than one set."""
    first: dict[str, str] = {}
    for name, group in groups.items():
        other = first.setdefault(group, name)
        if split_of[name] != split_of[other]:
            raise ValueError(
                f"group {group!r} is in {split_of[other]} (field {other!r}) and in "
                f"{split_of[name]} (field {name!r}): dependent fields must stay on one side"
            )


def _some(names, limit: int = 8) -> str:
    names = sorted(names)
    return ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")
