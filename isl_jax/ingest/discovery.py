"""Find the fields of a raw folder: which file holds which channel of which field."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from isl_jax.ingest import readers
from isl_jax.ingest.images import COLOURS, ImageFile, ImageInfo, damaged, not_grey
from isl_jax.ingest.layouts import OPERA_INDEX, Layout
from isl_jax.ingest.ome_zarr import is_zarr, list_zarr_labels


@dataclass(frozen=True)
class Part:
    """A file that holds (planes of) a channel; `channel` is its number inside the file.

    `colour`: the channel is a colour of its pixels. `info`: what its header says, if it was read.
    """

    path: Path
    channel: int | None = None  # None: the file holds no other channel
    colour: bool = False
    info: ImageInfo | None = None

    @property
    def siblings(self) -> tuple[Path, ...]:
        """Other files of the same image."""
        return self.info.siblings if self.info else ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files of the image that the channel is in."""
        return (self.path, *self.siblings)

    def open(self, files: readers.ImageFiles | None = None) -> ImageFile:
        """The image that the channel is in."""
        files = files or readers.ImageFiles()
        return files.open(self.path, colour=self.colour, alone=self.channel is None)

    def inspect(self, files: readers.ImageFiles | None = None) -> ImageInfo:
        """What the file holds, from its header."""
        return self.info or self.open(files).info

    def read(
        self, planes: Sequence[int] | None = None, files: readers.ImageFiles | None = None
    ) -> np.ndarray:
        """Planes of the channel, [P, H, W] in the file's dtype."""
        return self.open(files).read(self.channel or 0, planes)


@dataclass(frozen=True)
class RawField:
    """One field of view before preparation: the parts of each channel, in plane order."""

    name: str
    group: str
    files: Mapping[str, tuple[Part, ...]]

    @property
    def sources(self) -> dict[str, list[dict[str, Any]]]:
        """Names and sizes of the files of each channel."""
        return {
            channel: [{"file": p.name, "bytes": _size(p)} for part in parts for p in part.paths]
            for channel, parts in self.files.items()
        }

    @property
    def stamp(self) -> str:
        """Which files, and when each was written."""
        paths = [p for parts in self.files.values() for part in parts for p in part.paths]
        return repr((self.files, [path.stat().st_mtime_ns for path in paths]))


def _size(path: Path) -> int:
    inside = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in inside if file.is_file())


# field → channel → (plane number, part)
_Found = dict[str, dict[str, list[tuple[int, Part]]]]


def match_files(
    source: Path, layout: Layout, *, exclude: str | None = None
) -> tuple[tuple[RawField, ...], tuple[Path, ...]]:
    """Find the fields of a folder: (fields in name order, image files that matched nothing).

    Files of channels that the layout has no use for count as matching nothing. `exclude` drops
    fields in whose name it is found. Raises FileNotFoundError or ValueError in one line.
    """
    source = Path(source)
    if not source.is_dir():
        raise FileNotFoundError(
            f"{source}: no such folder; give --source=FOLDER with the raw files"
        )
    if not layout.inputs:
        raise ValueError("the layout names no input channel: give --inputs=channel[,channel]")
    if layout.pattern == OPERA_INDEX:
        found, unmatched = _match_opera(source, layout)
    else:
        found, unmatched = _match_names(source, layout)
    excluded = _compiled(exclude, "--exclude") if exclude else None
    kept = {
        name: channels
        for name, channels in sorted(found.items())
        if not (excluded and excluded.search(name))
    }
    if not kept:
        raise ValueError(
            f"{source}: no file matches the layout ({layout.pattern}) with channels "
            f"{', '.join(layout.channels())}; {len(unmatched)} other images are there"
            + (f", such as {unmatched[0].name}" if unmatched else "")
        )
    fields = tuple(
        RawField(name, _group_of(name, layout), _in_plane_order(name, channels))
        for name, channels in kept.items()
    )
    return fields, tuple(unmatched)


def _match_names(source: Path, layout: Layout) -> tuple[_Found, list[Path]]:
    regex, used = layout.regex(), layout.channels()
    field_keys = sorted(key for key in regex.groupindex if key.startswith("field"))
    found: _Found = defaultdict(lambda: defaultdict(list))
    unmatched, siblings = [], set()
    for path in sorted(readers.list_images(source)):
        if path in siblings:  # read together with a file before it
            continue
        match = regex.fullmatch(layout.rename(path.relative_to(source).as_posix()))
        values = match.groupdict() if match else {}
        if match is None:
            parts = {}
        elif values.get("channel") is not None:
            parts = {values["channel"]: Part(path)} if values["channel"] in used else {}
        else:
            parts = _parts_inside(path, used)
        if not parts:
            unmatched.append(path)
            continue
        name = " ".join(values[key] for key in field_keys if values[key]).replace("/", "_")
        for channel, part in parts.items():
            siblings.update(part.siblings)
            found[name][channel].append((int(values.get("plane") or 0), part))
    return found, unmatched


def _parts_inside(path: Path, used: Sequence[str]) -> dict[str, Part]:
    """Used channels that a file holds, by their names in its metadata or by number."""
    info = readers.inspect(path, colour=True)
    if info.is_colour and not set(used).intersection(COLOURS):
        raise not_grey(path, "colour", "--inputs=R,G,B")
    try:
        numbers = {name: info.channel_index(name) for name in used}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    parts = {
        name: Part(path, number, info.is_colour, info)
        for name, number in numbers.items()
        if number is not None
    }
    if is_zarr(path):
        labels = list_zarr_labels(path)
        parts |= {name: Part(labels[name]) for name in used if name in labels}
    return parts


def _match_opera(source: Path, layout: Layout) -> tuple[_Found, list[Path]]:
    """Fields, channels and planes from Harmony's index; labels from `<field>_<label>` files.

    Channels answer to their name (DAPI) and to their number (ch4).
    """
    indices = sorted(source.rglob(OPERA_INDEX))
    if not indices:
        raise FileNotFoundError(f"{source}: holds no {OPERA_INDEX}; give the export's folder")
    found: _Found = defaultdict(lambda: defaultdict(list))
    seen = set()
    for index in indices:
        prefix = "" if len(indices) == 1 else index.parent.relative_to(source).as_posix() + "/"
        try:
            images = ElementTree.parse(index).findall("{*}Images/{*}Image")
            for image in images:
                value = {child.tag.rpartition("}")[2]: child.text or "" for child in image}
                name = "r{:02d}c{:02d}f{:02d}".format(
                    *(int(value[key]) for key in ("Row", "Col", "FieldID"))
                )
                if int(value.get("TimepointID", 0)):
                    name += f"t{int(value['TimepointID']):02d}"
                path = index.parent / value["URL"]
                seen.add(path)
                for channel in {value.get("ChannelName", ""), f"ch{value['ChannelID']}"}:
                    if channel in layout.channels():
                        field = (prefix + name).replace("/", "_")
                        found[field][channel].append((int(value["PlaneID"]), Part(path)))
        except (ElementTree.ParseError, KeyError, ValueError) as error:
            raise damaged(index, error) from None
    unmatched = []
    for path in sorted(set(readers.list_images(source)) - seen):
        name, _, channel = path.stem.rpartition("_")
        if name in found and channel in layout.labels:
            found[name][channel].append((0, Part(path)))
        else:
            unmatched.append(path)
    return found, unmatched


def _group_of(name: str, layout: Layout) -> str:
    if layout.group is None:
        return name
    match = _compiled(layout.group, "--group").search(name)
    if match is None:
        raise ValueError(
            f"field {name!r}: the group expression {layout.group!r} is not found in its name"
        )
    return match[1] if match.re.groups else match[0]


def _in_plane_order(
    name: str, channels: Mapping[str, list[tuple[int, Part]]]
) -> dict[str, tuple[Part, ...]]:
    files = {}
    for channel, parts in channels.items():
        parts = sorted(parts, key=lambda item: (item[0], item[1].path))
        for (plane, part), (next_plane, other) in pairwise(parts):
            if plane == next_plane:
                raise ValueError(
                    f"field {name!r}, channel {channel!r} is given twice: {part.path} and "
                    f"{other.path}; remove or rename one"
                )
        files[channel] = tuple(part for _, part in parts)
    return files


def _compiled(expression: str, what: str) -> re.Pattern:
    try:
        return re.compile(expression)
    except re.error as error:
        raise ValueError(f"{what}={expression!r} is not a regular expression: {error}") from None
