"""How a lab names its files, and what each channel is for: patterns and roles."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from isl_jax.files import misfit
from isl_jax.ingest.projections import PROJECTIONS

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


def label_channels(text: str) -> tuple[str, ...]:
    """Channels that labels written `ids`, `mask:components` or `interior+edge` are made from."""
    match = re.fullmatch(r"([^+:]+)(?::components|\+([^+:]+))?", text)
    if match is None:
        raise ValueError(
            f"labels {text!r} are not of the form name, name:components or interior+edge"
        )
    return tuple(filter(None, match.groups()))


@dataclass(frozen=True)
class Layout:
    """How a lab names its files, and what each channel is for.

    `pattern` is matched against each path below the source folder (with /): a template such as
    `{field}_{channel}{suffix}`, or a regular expression with named groups `field` (further groups
    `field_2`, … are appended after a space), `channel`, and optionally `plane` for stacks saved as
    one file a plane. Where no `channel` is matched, the channels are those inside the file, by
    their names in its metadata or by number (colours: R, G, B); an OME-TIFF that is spread over
    several files then goes by the first of them in name order. The pattern `Index.idx.xml` stands
    for the file list that Opera Phenix (Harmony) writes. `renames`, pairs of a regular expression
    and its replacement, are applied in turn to the path before it is matched, for sets that name
    one thing in several ways. `labels` lists channels in order of preference; they hold instance
    ids, or hand-drawn masks: `mask:components` (each connected component is an instance) or
    `interior+edge` (cells, and the edges around them, apart). `group`, a regular expression
    searched in the field name, gives the unit that splits never cut (default: the field itself):
    its first group, or the whole match. `ignore`: the value of label images whose pixels nobody has
    annotated: they are neither cell nor background.
    """

    pattern: str
    inputs: tuple[Role, ...] = ()
    stain: Role | None = None
    labels: tuple[str, ...] = ()
    group: str | None = None
    study: str = "cell"
    pixel_size: float | None = None
    renames: tuple[tuple[str, str], ...] = ()
    ignore: int | None = None

    def rename(self, path: str) -> str:
        """The path as `pattern` is to see it."""
        for expression, replacement in self.renames:
            path = re.sub(expression, replacement, path)
        return path

    def roles(self) -> tuple[Role, ...]:
        """The inputs, and the stain if there is one."""
        return (*self.inputs, *([self.stain] if self.stain else []))

    def channels(self) -> tuple[str, ...]:
        """Names of all channels that have a role, each once."""
        labels = [channel for text in self.labels for channel in label_channels(text)]
        return tuple(dict.fromkeys([*(role.channel for role in self.roles()), *labels]))

    def record(self) -> dict[str, Any]:
        """What a prepared data set tells of it, in plain values."""
        return {
            "pattern": self.pattern,
            "inputs": [str(role) for role in self.inputs],
            "stain": str(self.stain) if self.stain else None,
            "labels": list(self.labels),
            "group": self.group,
            "ignore": self.ignore,
            "renames": [list(pair) for pair in self.renames],
        }

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
ANY_IMAGE = r"(?i:(?:\.ome)?\.(?:tiff?|btf)|\.png|\.npy|\.stk)"

# What the options of a layout file may be.
_KINDS = {
    "pattern": str, "inputs?": (str, [str]), "stain?": (str, None), "labels?": (str, [str]),
    "group?": (str, None), "study?": str, "pixel_size?": (float, None), "renames?": [[str]],
    "ignore?": (int, None),
}  # fmt: skip


def layout_from_options(options: Mapping, *, source: str = "layout") -> Layout:
    """Layout from plain values, roles being written as text; ValueError names an unknown key."""
    if not isinstance(options, Mapping):
        raise ValueError(f"{source}: is no table of options")
    known = {field.name for field in dataclasses.fields(Layout)}
    unknown = sorted(set(options) - known)
    if unknown or "pattern" not in options:
        what = f"unknown key {unknown[0]!r}" if unknown else "no key 'pattern'"
        raise ValueError(f"{source}: {what}; a layout has {', '.join(sorted(known))}")
    if told := misfit(options, _KINDS):
        raise ValueError(f"{source}: {told}")
    values = dict(options)
    inputs, labels = values.get("inputs", ()), values.get("labels", ())
    values["inputs"] = parse_roles(inputs if isinstance(inputs, str) else ",".join(inputs))
    values["labels"] = (labels,) if isinstance(labels, str) else tuple(labels)
    renames = tuple(map(tuple, values.get("renames", ())))
    if any(len(pair) != 2 for pair in renames):
        raise ValueError(f"{source}: renames are pairs of an expression and its replacement")
    values["renames"] = renames
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
        "suffix": ANY_IMAGE,
    }
    pieces = re.split(r"\{(\w+)\}", template)
    return "".join(
        f"(?P<{piece}>{kinds.get(piece, '.+?')})" if i % 2 else re.escape(piece)
        for i, piece in enumerate(pieces)
    )
