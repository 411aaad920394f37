"""File-name patterns to fields: which file is which channel, and what each channel is for."""

import dataclasses
import json
import re
import runpy
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from isl_jax.data.projections import PROJECTIONS
from isl_jax.data.readers import IMAGE_SUFFIXES

STUDIES = ("nucleus", "cell")


@dataclass(frozen=True)
class Role:
    """One channel in one role: its planes (None: all) and how they are reduced.

    Written `channel[planes]:projection`, for instance `ch5[1,2]`, `dic[::2]` or `dapi:max`; with
    projection `none` every plane becomes a network channel of its own.
    """

    channel: str
    planes: tuple[int, ...] | slice | None = None
    projection: str = "none"

    def __str__(self) -> str:
        planes = ""
        if isinstance(self.planes, slice):
            bounds = (self.planes.start, self.planes.stop, self.planes.step)
            planes = "[" + ":".join("" if b is None else str(b) for b in bounds) + "]"
        elif self.planes is not None:
            planes = "[" + ",".join(map(str, self.planes)) + "]"
        return self.channel + planes + ("" if self.projection == "none" else f":{self.projection}")

    @classmethod
    def parse(cls, text: str) -> "Role":
        """`channel[planes]:projection` → Role; ValueError that shows the grammar otherwise."""
        match = re.fullmatch(r"([^\[\]:]+)(?:\[([-\d,:]+)\])?(?::(\w+))?", text.strip())
        projection = (match and match[3]) or "none"
        if match is None or projection not in ("none", *PROJECTIONS):
            raise ValueError(
                f"channel {text!r} is not of the form name, name[1,2], name[::2] or "
                f"name:projection with a projection of {', '.join(('none', *PROJECTIONS))}"
            )
        return cls(match[1], _parse_planes(match[2]), projection)

    def select(self, count: int) -> list[int]:
        """Indices of the chosen planes among `count`; ValueError if the stack has too few."""
        if self.planes is None:
            return list(range(count))
        if isinstance(self.planes, slice):
            chosen = list(range(count))[self.planes]
        else:
            chosen = [plane for plane in self.planes if -count <= plane < count]
        if not chosen or (isinstance(self.planes, tuple) and len(chosen) < len(self.planes)):
            raise ValueError(f"has {count} plane{'s' * (count != 1)}, but {self} was asked for")
        return [plane % count for plane in chosen]


def _parse_planes(text: str | None) -> tuple[int, ...] | slice | None:
    if text is None:
        return None
    try:
        if ":" in text:
            return slice(*(int(part) if part else None for part in text.split(":")))
        return tuple(int(part) for part in text.split(","))
    except (ValueError, TypeError):
        raise ValueError(
            f"planes [{text}] are not of the form [1,2] or [start:stop:step]"
        ) from None


def parse_roles(text: str) -> tuple[Role, ...]:
    """Comma-separated roles, commas inside [] belonging to the plane list."""
    return tuple(Role.parse(part) for part in re.findall(r"(?:\[[^\]]*\]|[^,])+", text))


@dataclass(frozen=True)
class Layout:
    """How a lab names its files, and what each channel is for.

    `pattern` is matched against each path below the source folder (with /): a template such as
    `{field}_{channel}{suffix}`, or a regular expression with named groups `field` (further groups
    `field_2`, … are appended after a space), `channel`, and optionally `plane` for stacks saved as
    one file a plane. `labels` lists channels in order of preference. `group`, a regular
    expression searched in the field name, gives the unit that splits never cut (default: the
    field itself): its first group, or the whole match.
    """

    pattern: str
    inputs: tuple[Role, ...] = ()
    stain: Role | None = None
    labels: tuple[str, ...] = ()
    group: str | None = None
    study: str = "cell"
    pixel_size: float | None = None

    def channels(self) -> tuple[str, ...]:
        """Names of all channels that have a role, each once."""
        roles = [*self.inputs, *([self.stain] if self.stain else [])]
        return tuple(dict.fromkeys([*(role.channel for role in roles), *self.labels]))

    def regex(self) -> re.Pattern:
        """The pattern as a compiled regular expression; ValueError if it cannot be one."""
        is_regex = "(?P<" in self.pattern
        pattern = self.pattern if is_regex else _template_regex(self.pattern, self.channels())
        try:
            regex = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"layout pattern {self.pattern!r} is invalid: {error}") from None
        if "field" not in regex.groupindex:
            raise ValueError(f"layout pattern {self.pattern!r} names no field: write {{field}}")
        return regex


_ANY_IMAGE = r"(?i:\.tiff?|\.png)"

PRESETS: Mapping[str, Layout] = {
    # Opera Phenix exports: ch1 phase contrast, ch4 DAPI, ch5 bright field.
    "dataset1": Layout(
        pattern=r"(?P<field>.+)_(?P<channel>ch\d+|cellpose)" + _ANY_IMAGE,
        inputs=parse_roles("ch5[1,2],ch1:max"),
        stain=Role("ch4", projection="max"),
        labels=("cellpose",),
        study="nucleus",
    ),
    # MetaMorph: every second DIC plane, CellMask in Cy5.
    "dataset2": Layout(
        pattern=r"(?P<field>.+)_(?P<channel>w\d[^_]*|cell_instance)_(?P<field_2>.+)" + _ANY_IMAGE,
        inputs=parse_roles("w5DIC-oil-40x[0,2,4]"),
        stain=Role("w4Cy5", projection="focus"),
        labels=("cell_instance",),
        study="cell",
    ),
    "folder": Layout(pattern="{field}_{channel}{suffix}"),
}


def load_layout(name: str) -> Layout:
    """A preset by name, or the layout of a .py (variable `layout`), .json or .toml file."""
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if path.suffix not in (".py", ".json", ".toml") or not path.is_file():
        raise ValueError(
            f"layout {name!r} is neither a preset ({', '.join(PRESETS)}) nor an existing .py, "
            ".json or .toml file"
        )
    if path.suffix == ".py":
        layout = runpy.run_path(str(path)).get("layout")
        if not isinstance(layout, Layout):
            raise ValueError(f"{path}: defines no variable `layout` of type Layout")
        return layout
    try:
        text = path.read_text()
        options = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: is not valid {path.suffix[1:]} ({error})") from None
    return layout_from_options(options, source=str(path))


def layout_from_options(options: Mapping, *, source: str = "layout") -> Layout:
    """Layout from plain values, roles being written as text; ValueError names an unknown key."""
    known = {field.name for field in dataclasses.fields(Layout)}
    unknown = sorted(set(options) - known)
    if unknown or "pattern" not in options:
        what = f"unknown key {unknown[0]!r}" if unknown else "no key 'pattern'"
        raise ValueError(f"{source}: {what}; a layout has {', '.join(sorted(known))}")
    values = dict(options)
    inputs, labels = values.get("inputs", ()), values.get("labels", ())
    values["inputs"] = parse_roles(inputs if isinstance(inputs, str) else ",".join(inputs))
    values["labels"] = (labels,) if isinstance(labels, str) else tuple(labels)
    values["stain"] = Role.parse(values["stain"]) if values.get("stain") else None
    return Layout(**values)


@dataclass(frozen=True)
class RawField:
    """One field of view before preparation: its files by channel, each in plane order."""

    name: str
    group: str
    files: Mapping[str, tuple[Path, ...]]


def match_files(
    source: Path, layout: Layout, *, exclude: str | None = None
) -> tuple[tuple[RawField, ...], tuple[Path, ...]]:
    """Find the fields of a folder: (fields in name order, image files that matched nothing).

    Channels that the layout has no use for count as matching nothing. `exclude` drops fields whose
    name it is found in. Raises FileNotFoundError or ValueError in one line.
    """
    source = Path(source)
    if not source.is_dir():
        raise FileNotFoundError(
            f"{source}: no such folder; give --source=FOLDER with the raw files"
        )
    if not layout.inputs:
        raise ValueError("the layout names no input channel: give --inputs=channel[,channel]")
    regex, used = layout.regex(), layout.channels()
    found: dict[str, dict[str, list[tuple[int, Path]]]] = {}
    unmatched = []
    for path in _image_files(source):
        match = regex.fullmatch(path.relative_to(source).as_posix())
        if match is None or (channel := _split_channel(match, used)) is None:
            unmatched.append(path)
            continue
        parts = [match[key] for key in sorted(regex.groupindex) if key.startswith("field")]
        name = " ".join(part for part in parts if part).replace("/", "_")
        plane = int(match["plane"]) if "plane" in regex.groupindex else 0
        found.setdefault(name, {}).setdefault(channel, []).append((plane, path))
    excluded = re.compile(exclude) if exclude else None
    fields = tuple(
        RawField(name, _group_of(name, layout), _ordered(name, channels))
        for name, channels in sorted(found.items())
        if not (excluded and excluded.search(name))
    )
    if not fields:
        raise ValueError(
            f"{source}: no file matches the layout ({layout.pattern}) with channels "
            f"{', '.join(used)}; {len(unmatched)} image files were looked at, try --dry_run"
        )
    return fields, tuple(unmatched)


def _image_files(source: Path) -> Iterable[Path]:
    return sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def _split_channel(match: re.Match, used: tuple[str, ...]) -> str | None:
    if "channel" not in match.re.groupindex:
        return used[0]
    return match["channel"] if match["channel"] in used else None


def _group_of(name: str, layout: Layout) -> str:
    if layout.group is None:
        return name
    match = re.search(layout.group, name)
    if match is None:
        raise ValueError(
            f"field {name!r}: the group expression {layout.group!r} is not found in its name"
        )
    return match[1] if match.re.groups else match[0]


def _ordered(name: str, channels: Mapping[str, list[tuple[int, Path]]]) -> dict:
    files = {}
    for channel, parts in channels.items():
        planes = [plane for plane, _ in parts]
        if len(set(planes)) < len(planes):
            both = " and ".join(str(path) for _, path in sorted(parts)[:2])
            raise ValueError(
                f"field {name!r}, channel {channel!r} is given twice: {both}; remove or rename one"
            )
        files[channel] = tuple(path for _, path in sorted(parts))
    return files


def _template_regex(template: str, channels: Iterable[str]) -> str:
    """`{field}_{channel}{suffix}` → regular expression; every placeholder becomes a named group."""
    # Field and channel names may both contain the separator (hela_1_cell_masks.tif): the known
    # channel names, longest first, decide where the field's name ends.
    names = sorted(channels, key=len, reverse=True)
    kinds = {
        "plane": r"\d+",
        "channel": "|".join(map(re.escape, names)) or "[^/]+",
        "suffix": _ANY_IMAGE,
    }
    pieces = re.split(r"\{(\w+)\}", template)
    return "".join(
        f"(?P<{piece}>{kinds.get(piece, '.+?')})" if i % 2 else re.escape(piece)
        for i, piece in enumerate(pieces)
    )
