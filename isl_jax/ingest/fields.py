"""A field of a raw folder: which file holds which channel of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.ingest import readers
from isl_jax.ingest.images import ImageFile, ImageInfo


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

    def open(self, files: readers.ImageFiles | None = None, *, index: bool = False) -> ImageFile:
        """The image that the channel is in; `index`: see `readers.open_image`."""
        files = files or readers.ImageFiles()
        alone = self.channel is None
        return files.open(self.path, colour=self.colour, alone=alone, index=index)

    def inspect(self, files: readers.ImageFiles | None = None) -> ImageInfo:
        """What the file holds, from its header."""
        return self.info or self.open(files).info

    def read(
        self, planes: Sequence[int] | None = None, files: readers.ImageFiles | None = None
    ) -> np.ndarray:
        """Planes of the channel, [P, H, W] in the file's dtype."""
        return self.open(files).read(self.channel or 0, planes)

    @property
    def own_name(self) -> str | None:
        """What the file itself calls the channel; None where it does not say."""
        if self.info is None or not self.info.is_named:
            return None
        return self.info.channels[self.channel or 0]


@dataclass(frozen=True)
class RawField:
    """One field of view before preparation: the parts of each channel, in plane order.

    `fault`: why its channels could not be found; it is raised when the field is checked, so that
    one field does not hide the others.
    """

    name: str
    group: str
    files: Mapping[str, tuple[Part, ...]]
    fault: ValueError | OSError | None = None

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


def leave_out(name: str) -> str:
    """What to do about a field that cannot be mended: commands that find fields have --exclude."""
    return f"leave the field out with --exclude='^{re.escape(name)}$'"


def _size(path: Path) -> int:
    inside = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in inside if file.is_file())
