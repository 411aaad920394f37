"""One image, in one file or several: found to be what the model takes, then its planes read."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isl_jax.data.binning import bin_average
from isl_jax.inference import large
from isl_jax.inference.large import ImageLike, OpenedImage, Scratch
from isl_jax.ingest import readers
from isl_jax.ingest.checked import check_field
from isl_jax.ingest.fields import Part, RawField
from isl_jax.ingest.images import COLOURS, AskForError, ImageInfo
from isl_jax.ingest.layouts import Layout, Role
from isl_jax.ingest.planes import chosen_planes, read_role
from isl_jax.ingest.projections import PROJECTIONS

NAMED_FILES = "{field}_{channel}{suffix}"


@dataclass(frozen=True)
class Source:
    """Where one image is, before any of it is read.

    `roles`: which planes of which channels the model takes, in order. `field` holds the files of
    each channel; without it, `path` is one file (with its `siblings`) that holds all channels.
    """

    name: str
    path: Path
    roles: tuple[Role, ...]
    field: RawField | None = None
    siblings: tuple[Path, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files of the image."""
        if self.field is None:
            return (self.path, *self.siblings)
        parts = (part for parts in self.field.files.values() for part in parts)
        return tuple(dict.fromkeys(path for part in parts for path in part.paths))

    @property
    def origins(self) -> tuple[Path, ...]:
        """All files that stand for the image."""
        return self.paths

    def open(self, scratch: Scratch, *, binning: int = 1) -> OpenedImage:
        """Check the headers and read the planes; those of large images stay in files.

        `binning`: average blocks of so many pixels squared, as `isl-prepare --bin` does.
        Raises ValueError or OSError in one line that names the file.
        """
        files = readers.ImageFiles()  # each file is parsed once
        try:
            field, roles = (self.field, self.roles) if self.field else self._inside(files)
            checked = check_field(field, Layout(NAMED_FILES, inputs=roles), files)
        except AskForError as error:
            raise ValueError(f"{error}{option_for(self.roles)}") from error
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
        spacing = checked.spacing and (checked.spacing[0] * binning, checked.spacing[1] * binning)
        return OpenedImage(self.name, planes, self.paths, spacing, binning)

    def _inside(self, files: readers.ImageFiles) -> tuple[RawField, tuple[Role, ...]]:
        """Channels of the one file: by name where it names them, or else all planes in order.

        The only channel of a file answers to any name when the roles tell its planes.
        """
        colours = any(r.projection == "rgb" or r.channel.upper() in COLOURS for r in self.roles)
        info = files.open(self.path, colour=colours).info
        names = list(dict.fromkeys(role.channel for role in self.roles))
        if any(role.projection == "rgb" for role in self.roles):
            return self._field({name: Part(self.path, 0, True) for name in names}), self.roles
        count = len(info.channels) * info.planes
        wanted = [name for role in self.roles for name in _plane_names(role)]
        fits = count in (len(wanted), len(set(wanted)))
        numbers = self._numbers(info, names)
        # Names that say the same as the model's, one for one, repeated ones too.
        same = [*map(str.casefold, info.channels)] == [*map(str.casefold, wanted)]
        if fits and (same or None in numbers) and (same or self._by_order(info)):
            channels = [str(number) for number in range(len(info.channels))]
            parts = {
                name: Part(self.path, number, info.is_colour)
                for number, name in enumerate(channels)
            }
            return self._field(parts), tuple(map(Role, channels))
        if len(names) == len(info.channels) == 1 and all(role.planes for role in self.roles):
            numbers = [0]
        if None in numbers:
            example = ",".join(itertools.islice(itertools.cycle(info.channels), len(wanted)))
            if len(info.channels) == 1:
                example = f"{info.channels[0]}[{','.join(map(str, range(len(wanted))))}]"
            raise ValueError(
                f"{self.path}: holds {count} plane{'s' * (count != 1)} (channels "
                f"{', '.join(info.channels)}), the model takes {len(wanted)} "
                f"({', '.join(map(str, self.roles))}); say which they are with --channels, as in "
                f"--channels={example}"
            )
        parts = {
            name: Part(self.path, number, info.is_colour)
            for name, number in zip(names, numbers, strict=True)
        }
        return self._field(parts), self.roles

    def _numbers(self, info: ImageInfo, names: Sequence[str]) -> list[int | None]:
        try:
            return [info.channel_index(name) for name in names]
        except ValueError as error:
            if list(map(str.casefold, info.channels)) == [str(r).casefold() for r in self.roles]:
                return [None] * len(names)
            raise ValueError(f"{self.path}: {error}") from None

    def _by_order(self, info: ImageInfo) -> bool:
        """Whether the order of a file's channels may tell which they are."""
        return len(info.channels) == 1 or not info.is_named

    def _field(self, parts: Mapping[str, Part]) -> RawField:
        return RawField(self.name, self.name, {name: (part,) for name, part in parts.items()})


def option_for(roles: Sequence[Role]) -> str:
    """How to ask for colours where grey planes were expected."""
    count = sum(len(COLOURS) if role.projection == "rgb" else 1 for role in roles)
    return {1: " (--channels=R, G or B)", len(COLOURS): " (--channels=R,G,B)"}.get(count, "")


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


def read_maps(
    paths: Sequence[Path], scratch: Scratch
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Maps `[K, H, W]` float32 of K files of one plane each, and their spacing in µm, (y, x)."""
    files = [readers.open_image(path) for path in paths]
    shape = (files[0].info.height, files[0].info.width)
    maps = scratch.empty((len(files), *shape), np.float32)
    for index, file in enumerate(files):
        info = file.info
        if (info.height, info.width) != shape or len(info.channels) * info.planes != 1:
            raise ValueError(
                f"{file.path}: holds {len(info.channels) * info.planes} planes of {info.height}×"
                f"{info.width} pixels, expected one of {shape[0]}×{shape[1]}; predict them again"
            )
        maps[index] = file.read()[0]
        if not np.isfinite(maps[index]).all():
            raise ValueError(f"{file.path}: holds NaN or infinite values; predict the maps again")
    return maps, files[0].info.spacing


def roles_of(channels: Sequence[str]) -> tuple[Role, ...]:
    """The roles that gave a model its channels: the inverse of how prepared channels are named."""
    texts = [re.sub(f":({'|'.join(COLOURS)})$", ":rgb", name) for name in channels]
    # The three colours of one image are one role.
    pairs = itertools.pairwise(["", *texts])
    return tuple(Role.parse(b) for a, b in pairs if not (a == b and b.endswith(":rgb")))
