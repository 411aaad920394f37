"""From what the user points at to images, the model's channels in order; opened one by one."""

import dataclasses
import glob
import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isl_jax.data.binning import bin_average
from isl_jax.inference import large
from isl_jax.inference.large import ImageLike, OpenedImage, Scratch
from isl_jax.ingest import readers
from isl_jax.ingest.checked import check_field, chosen_planes, read_role
from isl_jax.ingest.discovery import Part, RawField, match_files
from isl_jax.ingest.images import COLOURS
from isl_jax.ingest.layouts import Layout, Role
from isl_jax.ingest.ome_zarr import is_zarr, list_zarr_images
from isl_jax.ingest.projections import PROJECTIONS

_NAMED_FILES = "{field}_{channel}{suffix}"


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
        files = readers.ImageFiles()  # each file is parsed once
        field, roles = (self.field, self.roles) if self.field else self._inside(files)
        checked = check_field(field, Layout(_NAMED_FILES, inputs=roles), files)
        # A plane that stands for several channels is read once.
        unique = {str(role): role for role in roles}
        if scratch.is_large((checked.height, checked.width)):
            seen = {n: _large_role(field, r, files, scratch, binning) for n, r in unique.items()}
            stack = (plane for role in roles for plane in seen[str(role)])
            planes: ImageLike = large.PlaneStack(tuple(stack))
        else:
            images = {name: read_role(field, role, files) for name, role in unique.items()}
            names = unique if len(unique) == 1 else map(str, roles)
            planes = np.concatenate([images[name] for name in names])
            if binning > 1:
                planes = np.stack([bin_average(plane, binning) for plane in planes])
        pixel_size = checked.pixel_size * binning if checked.pixel_size else None
        return OpenedImage(self.name, planes, self.paths, pixel_size)

    def _inside(self, files: readers.ImageFiles) -> tuple[RawField, tuple[Role, ...]]:
        """Channels of the one file: by name, or else all its planes in their order.

        The only channel of a file answers to any name when the roles tell its planes.
        """
        wants_colour = any(role.projection == "rgb" for role in self.roles)
        info = files.open(self.path, colour=wants_colour).info
        names = list(dict.fromkeys(role.channel for role in self.roles))
        if wants_colour:
            return self._field({name: Part(self.path, 0, True) for name in names}), self.roles
        try:
            numbers = [info.channel_index(name) for name in names]
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None
        count = len(info.channels) * info.planes
        wanted = [name for role in self.roles for name in _plane_names(role)]
        if None in numbers and count in (len(wanted), len(set(wanted))):
            channels = [str(number) for number in range(len(info.channels))]
            parts = {name: Part(self.path, number) for number, name in enumerate(channels)}
            return self._field(parts), tuple(map(Role, channels))
        if len(names) == len(info.channels) == 1 and all(role.planes for role in self.roles):
            numbers = [0]
        if None in numbers:
            raise ValueError(
                f"{self.path}: holds {count} plane{'s' * (count != 1)} (channels "
                f"{', '.join(info.channels)}), the model takes {len(wanted)} "
                f"({', '.join(map(str, self.roles))}); say with --channels which they are"
            )
        parts = zip(names, numbers, strict=True)
        return self._field({name: Part(self.path, number) for name, number in parts}), self.roles

    def _field(self, parts: Mapping[str, Part]) -> RawField:
        return RawField(self.name, self.name, {name: (part,) for name, part in parts.items()})


def _plane_names(role: Role) -> list[str]:
    """A name for each network channel that a role gives, as far as its words tell."""
    if role.projection != "none" or not isinstance(role.planes, tuple):
        return [str(role)]
    return [f"{role.channel}[{plane}]" for plane in role.planes]


def _large_role(
    field: RawField, role: Role, files: readers.ImageFiles, scratch: Scratch, binning: int
) -> list[large.PlaneLike]:
    """Planes of a role, projected and binned, none of which needs to fit into memory."""
    planes: list[large.PlaneLike] = [
        large.by_windows(part.open(files), part.channel or 0, number, scratch)
        for part, number in chosen_planes(field, role, files)
    ]
    if role.projection in PROJECTIONS:
        planes = [large.Projected(tuple(planes), PROJECTIONS[role.projection])]
    return planes if binning == 1 else [large.Binned(plane, binning) for plane in planes]


def read_maps(paths: Sequence[Path], scratch: Scratch) -> tuple[np.ndarray, float | None]:
    """Maps `[K, H, W]` float32 of K files of one plane each, and their pixel size in µm."""
    files = [readers.open_image(path) for path in paths]
    header = files[0].info
    maps = scratch.empty((len(files), header.height, header.width), np.float32)
    for index, file in enumerate(files):
        maps[index] = file.read()[0]
    return maps, header.pixel_size


def roles_of(channels: Sequence[str]) -> tuple[Role, ...]:
    """The roles that gave a model its channels: the inverse of how prepared channels are named."""
    texts = [re.sub(f":({'|'.join(COLOURS)})$", ":rgb", name) for name in channels]
    # The three colours of one image are one role.
    pairs = itertools.pairwise(["", *texts])
    return tuple(Role.parse(b) for a, b in pairs if not (a == b and b.endswith(":rgb")))


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
            sources += [_of(field, roles) for field in fields]
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


def _of(field: RawField, roles: tuple[Role, ...]) -> Source:
    return Source(field.name, next(iter(field.files.values()))[0].path, roles, field)


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
        sources.append(_of(RawField(name, name, parts), roles))
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
