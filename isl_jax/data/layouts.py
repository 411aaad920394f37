"""How a lab names its files, and what each channel is for: patterns, roles, presets."""

import dataclasses
import json
import re
import runpy
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from isl_jax.data.projections import PROJECTIONS

STUDIES = ("nucleus", "cell")
_REDUCTIONS = ("none", "rgb", *PROJECTIONS)


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
        if match is None or projection not in _REDUCTIONS:
            raise ValueError(
                f"channel {text!r} is not of the form name, name[1,2], name[::2] or "
                f"name:projection with a projection of {', '.join(_REDUCTIONS)}"
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
    one file a plane. Where no `channel` is matched, the channels are those inside the file, by
    their names in its metadata or by number (colours: R, G, B); an OME-TIFF that is spread over
    several files then goes by the first of them in name order. The pattern `Index.idx.xml` stands
    for the file list that Opera Phenix (Harmony) writes. `labels` lists channels in order of
    preference. `group`, a regular expression searched in the field name, gives the unit that splits
    never cut (default: the field itself): its first group, or the whole match.
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
        is_regex = "(?P<" in self.pattern or self.pattern == OPERA_INDEX
        pattern = self.pattern if is_regex else _template_regex(self.pattern, self.channels())
        try:
            regex = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"layout pattern {self.pattern!r} is invalid: {error}") from None
        if "field" not in regex.groupindex:
            raise ValueError(f"layout pattern {self.pattern!r} names no field: write {{field}}")
        return regex


OPERA_INDEX = "Index.idx.xml"
_ANY_IMAGE = r"(?i:\.tiff?|\.png|\.npy|\.stk)"

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
    # Channels and planes of data set 1, as the microscope itself exports them.
    "opera": Layout(
        pattern=OPERA_INDEX,
        inputs=parse_roles("ch5[1,2],ch1:max"),
        stain=Role("ch4", projection="max"),
        labels=("cellpose",),
        group=r"r\d+c\d+",
        study="nucleus",
    ),
    # X.tif beside X_masks.tif, X_cp_masks.png or X_seg.npy; channels by number inside X.tif.
    "cellpose": Layout(
        pattern=r"(?P<field>.+?)(?:_(?P<channel>masks|cp_masks|seg|flows))?" + _ANY_IMAGE,
        inputs=(Role("0"),),
        labels=("masks", "cp_masks", "seg"),
    ),
    # images/X.tif beside masks/X.tif.
    "stardist": Layout(
        pattern=r"(?:(?P<field>.+)/)?(?:images|(?P<channel>masks))/(?P<field_2>.+)" + _ANY_IMAGE,
        inputs=(Role("0"),),
        labels=("masks",),
    ),
    # One OME-Zarr image a field, or plates of them; labels stored inside go by their names.
    "omezarr": Layout(
        pattern=r"(?P<field>.+?)(?:\.ome)?\.zarr(?:/(?P<field_2>.+))?", inputs=(Role("0"),)
    ),
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
