"""From what the user points at to images, the model's channels in order; opened one by one."""

import dataclasses
import glob
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.inference.large import Binned, PlaneStack, large_role
from isl_jax.inference.scratch import Scratch
from isl_jax.inference.tiling import ImageLike
from isl_jax.ingest import readers
from isl_jax.ingest.checks import check_field, read_role
from isl_jax.ingest.discovery import Part, RawField, match_files
from isl_jax.ingest.images import COLOURS
from isl_jax.ingest.layouts import Layout, Role
from isl_jax.ingest.ome_zarr import is_zarr, list_zarr_images
from isl_jax.ingest.projections import bin_average

_NAMED_FILES = "{field}_{channel}{suffix}"


@dataclass(frozen=True)
class OpenedImage:
    """An image ready to be predicted: `planes` `[C, H, W]`, raw; pixel_size in µm if known.

    `planes` is None where only the maps of an image are at hand.
    """

    name: str
    planes: ImageLike | None
    paths: tuple[Path, ...]
    pixel_size: float | None = None


@dataclass(frozen=True)
class Source:
    """Where one image is, before any of it is read.

    `roles`: which planes of which channels the model takes, in order. `field` holds the files of
    each channel; without it, `path` is one file that holds all channels.
    """

    name: str
    path: Path
    roles: tuple[Role, ...]
    field: RawField | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files of the image."""
        parts = (
            [part for parts in self.field.files.values() for part in parts] if self.field else []
        )
        return tuple(dict.fromkeys(path for part in parts for path in part.paths)) or (self.path,)

    def open(self, scratch: Scratch, *, binning: int = 1) -> OpenedImage:
        """Check the headers and read the planes; those of large images stay in files.

        `binning`: average blocks of so many pixels squared, as `isl-prepare --bin` does.
        Raises ValueError or OSError in one line that names the file.
        """
        field, roles = (self.field, self.roles) if self.field else self._inside()
        layout = Layout(_NAMED_FILES, inputs=roles)
        checked = check_field(field, layout)
        # A plane that stands for several channels is read once.
        unique = tuple(dict.fromkeys(roles))
        if scratch.is_large((checked.height, checked.width)):
            stacks = {role: large_role(field, role, scratch) for role in unique}
            stack = tuple(plane for role in roles for plane in stacks[role])
            binned = {id(plane): Binned(plane, binning) for plane in stack}
            planes: Any = PlaneStack(
                stack if binning == 1 else tuple(binned[id(plane)] for plane in stack)
            )
        else:
            images = {role: read_role(field, role) for role in unique}
            order = unique if len(unique) == 1 else roles
            planes = np.concatenate([images[role] for role in order])
            if binning > 1:
                planes = np.stack([bin_average(plane, binning) for plane in planes])
        pixel_size = checked.pixel_size * binning if checked.pixel_size else None
        return OpenedImage(self.name, planes, self.paths, pixel_size)

    def _inside(self) -> tuple[RawField, tuple[Role, ...]]:
        """Channels of the one file: by name, or else all its planes in their order."""
        wants_colour = any(role.projection == "rgb" for role in self.roles)
        info = readers.inspect(self.path, colour=wants_colour)
        names = dict.fromkeys(role.channel for role in self.roles)
        if wants_colour:
            files = {name: (Part(self.path, 0, True),) for name in names}
            return RawField(self.name, self.name, files), self.roles
        try:
            numbers = {name: info.channel_index(name) for name in names}
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None
        if all(number is not None for number in numbers.values()):
            files = {name: (Part(self.path, number),) for name, number in numbers.items()}
            return RawField(self.name, self.name, files), self.roles
        count = len(info.channels) * info.planes
        if count not in (len(self.roles), len(set(self.roles))):
            raise ValueError(
                f"{self.path}: holds {count} plane{'s' * (count != 1)} (channels "
                f"{', '.join(info.channels)}), the model takes {len(self.roles)} "
                f"({', '.join(map(str, self.roles))}); say with --channels which they are"
            )
        roles = tuple(Role(str(k)) for k in range(len(info.channels)))
        files = {str(k): (Part(self.path, k),) for k in range(len(info.channels))}
        return RawField(self.name, self.name, files), roles


def roles_of(channels: Sequence[str]) -> tuple[Role, ...]:
    """The roles that gave a model its channels: the inverse of how prepared channels are named."""
    colours = tuple(f":{colour}" for colour in COLOURS)
    texts = []
    for name in channels:
        if name.endswith(colours):
            # The three colours of one image are one role.
            name = f"{name[: -len(colours[0])]}:rgb"
            if texts and texts[-1] == name:
                continue
        texts.append(name)
    return tuple(map(Role.parse, texts))


def find_sources(
    inputs: Iterable[str],
    roles: tuple[Role, ...],
    *,
    layout: Layout | None = None,
    exclude: str | None = None,
) -> tuple[list[Source], int]:
    """Images that the user points at, in name order, and the number of files that are no part.

    inputs: files, folders, Zarr images and plates, patterns, `.txt` lists of such. Files called
    `<field>_<channel>` after the model's channels form one image a field; if there are none, every
    file is an image. With `layout`, each input is a folder of that layout. Raises FileNotFoundError
    or ValueError when nothing is found or two images have one name.
    """
    sources: list[Source] = []
    if layout is not None:
        layout = dataclasses.replace(layout, inputs=roles, stain=None, labels=())
        num_unused = 0
        for text in inputs:
            fields, unmatched = match_files(Path(text), layout, exclude=exclude)
            num_unused += len(unmatched)
            sources += [_of_field(field, roles) for field in fields]
    else:
        files = list(dict.fromkeys(path for text in inputs for path in _expand(text)))
        if exclude:
            files = [path for path in files if not re.search(exclude, path.name)]
        sources, num_unused = _by_channel(files, roles)
        if not sources:
            names = _names(files)
            sources = [Source(names[path], path, roles) for path in files]
            num_unused = 0
    if not sources:
        raise FileNotFoundError(f"{', '.join(inputs)}: holds no image that can be read")
    twice = [name for name, count in Counter(s.name for s in sources).items() if count > 1]
    if twice:
        where = ", ".join(str(s.path) for s in sources if s.name == twice[0])
        raise ValueError(f"two images are called {twice[0]!r} ({where}); predict them apart")
    return sorted(sources, key=lambda source: source.name), num_unused


def _of_field(field: RawField, roles: tuple[Role, ...]) -> Source:
    first = next(iter(field.files.values()))[0].path
    return Source(field.name, first, roles, field)


def _by_channel(files: Sequence[Path], roles: tuple[Role, ...]) -> tuple[list[Source], int]:
    regex = Layout(_NAMED_FILES, inputs=roles).regex()
    found: dict[tuple[Path, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    num_unused = 0
    for path in files:
        match = None if is_zarr(path) else regex.fullmatch(path.name)
        if match is None:
            num_unused += 1
        else:
            found[path.parent, match["field"]][match["channel"]].append(path)
    several = len({name for _, name in found}) < len(found)
    sources = []
    for (parent, field), channels in found.items():
        name = f"{parent.name}_{field}" if several else field
        parts = {channel: tuple(map(Part, paths)) for channel, paths in channels.items()}
        sources.append(_of_field(RawField(name, name, parts), roles))
    return sources, num_unused


def _expand(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_file() and path.suffix.lower() == ".txt":
        lines = [line.strip() for line in path.read_text().splitlines()]
        entries = [line for line in lines if line and not line.startswith("#")]
        # Relative names count from the list, as they do wherever it is used from.
        return [p for line in entries for p in _expand(str(path.parent / Path(line).expanduser()))]
    if is_zarr(path):
        return list(list_zarr_images(path))
    if path.is_dir():
        return list(readers.list_images(path))
    if path.exists():
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207, Path.glob refuses /
    if not matches:
        raise FileNotFoundError(f"{text}: no such file, folder or pattern that matches")
    images = [
        match
        for match in map(Path, matches)
        if match.is_dir() or match.suffix.lower() in readers.IMAGE_SUFFIXES
    ]
    return [found for match in images for found in _expand(str(match))]


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """A name for each file: its stem, or where that is no name for one file alone, its path."""
    names = {path: _stem(path) for path in files}
    if len(set(names.values())) < len(names) and len(files) > 1:
        base = os.path.commonpath([path.parent.absolute() for path in files])
        for path in files:
            folder = path.parent.absolute().relative_to(base)
            names[path] = "_".join([*folder.parts, _stem(path)])
    return names


def _stem(path: Path) -> str:
    # An image inside a Zarr plate goes by its place there.
    inside = [k for k, part in enumerate(path.parts) if part.lower().endswith(".zarr")]
    parts = path.parts[inside[0] :] if inside else (path.name,)
    first = re.sub(r"(\.ome)?\.[^.]+$", "", parts[0], flags=re.IGNORECASE)
    return "_".join([first, *parts[1:]])
