"""From what the user points at to images: which files are one, what it is called."""

import contextlib
import dataclasses
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from isl_jax.inference.expansion import expand
from isl_jax.inference.opening import NAMED_FILES, Source, option_for
from isl_jax.ingest import readers
from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.fields import Part, RawField
from isl_jax.ingest.images import AskForError
from isl_jax.ingest.layouts import Layout, Role
from isl_jax.ingest.listing import image_stem
from isl_jax.ingest.ome_zarr import is_zarr

# Names of files that a message gives.
_SHOWN = 4


class FoundSources(NamedTuple):
    """Images in name order, and the image files that are part of none."""

    images: list[Source]
    unused: list[Path]


def find_sources(
    inputs: Sequence[str],
    roles: tuple[Role, ...],
    *,
    layout: Layout | None = None,
    exclude: str | None = None,
) -> FoundSources:
    """Images that the user points at.

    inputs: files, folders, Zarr images and plates, patterns, `.txt` lists of such. Files called
    `<field>_<channel>` after the model's channels form one image a field; if there are none, every
    file is an image. With `layout`, each input is a folder of that layout. `exclude`, a regular
    expression, leaves out the images in whose names it is found, before any is opened. Raises
    FileNotFoundError or ValueError when nothing is found or two images have one name.
    """
    if layout is not None:
        found = _by_layout(inputs, roles, layout, exclude)
    else:
        expanded = expand(inputs)
        found = _by_channel(expanded.files, roles)
        if not found.images:
            names = _names(expanded.files)
            found.images.extend(Source(names[path], path, roles) for path in expanded.files)
            found.unused.clear()
        found.unused.extend(expanded.passed_over)
        if not found.images:
            raise FileNotFoundError(
                f"{', '.join(inputs)}: holds no image that can be read{told(found.unused)}"
            )
        kept = _kept(found.images, exclude)
        found = FoundSources(_without_siblings(kept), found.unused)
    twice = [name for name, count in Counter(s.name for s in found.images).items() if count > 1]
    if twice:
        where = ", ".join(str(s.path) for s in found.images if s.name == twice[0])
        raise ValueError(f"two images are called {twice[0]!r} ({where}); predict them apart")
    return FoundSources(sorted(found.images, key=lambda source: source.name), found.unused)


def told(unused: Sequence[Path]) -> str:
    """`; 5 other files are not used (a.tif, b.tif, …)`, or nothing."""
    if not unused:
        return ""
    shown = ", ".join([*(path.name for path in unused[:_SHOWN]), "…"][: len(unused)])
    return f"; {len(unused)} other file{'s are' if len(unused) > 1 else ' is'} not used ({shown})"


def _kept(sources: Sequence[Source], exclude: str | None) -> list[Source]:
    if not exclude:
        return list(sources)
    try:
        kept = [source for source in sources if not re.search(exclude, source.name)]
    except re.error as error:
        raise ValueError(f"--exclude={exclude!r} is not a regular expression: {error}") from None
    if not kept:
        raise ValueError(f"--exclude={exclude}: leaves none of {len(sources)} images")
    return kept


def _by_layout(
    inputs: Sequence[str], roles: tuple[Role, ...], layout: Layout, exclude: str | None
) -> FoundSources:
    layout = dataclasses.replace(layout, inputs=roles, stain=None, labels=(), group=None)
    found = FoundSources([], [])
    for text in inputs:
        folder = Path(text).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"{text}: no such folder; with --layout, --input is a folder")
        try:
            fields, unmatched = match_files(folder, layout, exclude=exclude)
        except AskForError as error:
            raise ValueError(f"{error}{option_for(roles)}") from error
        found.unused.extend(unmatched)
        found.images.extend(_of(field, roles) for field in fields)
    return found


def _of(field: RawField, roles: tuple[Role, ...]) -> Source:
    return Source(field.name, next(iter(field.files.values()))[0].path, roles, field)


def _by_channel(files: Sequence[Path], roles: tuple[Role, ...]) -> FoundSources:
    regex = Layout(NAMED_FILES, inputs=roles).regex()
    found: dict[tuple[Path, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    unused = []
    for path in files:
        match = None if is_zarr(path) else regex.fullmatch(path.name)
        if match is None:
            unused.append(path)
        else:
            found[path.parent, match["field"]][match["channel"]].append(path)
    sources = []
    names = _names_of_fields(list(found))
    for (parent, field), channels in found.items():
        name = names[parent, field]
        for channel, paths in channels.items():
            if len(paths) > 1:
                raise ValueError(
                    f"{paths[0]} and {paths[1]} are both {channel!r} of {name!r}; move one away"
                )
        parts = {channel: tuple(map(Part, paths)) for channel, paths in channels.items()}
        sources.append(_of(RawField(name, name, parts), roles))
    return FoundSources(sources, unused)


def _names_of_fields(fields: Sequence[tuple[Path, str]]) -> dict[tuple[Path, str], str]:
    """A name for each field of a folder: its own, or as much of its path as tells them apart."""
    base = Path(os.path.commonpath([parent.absolute() for parent, _ in fields] or ["."]))

    def with_path(parent: Path, field: str) -> str:
        return "_".join([*parent.absolute().relative_to(base).parts, field])

    for name in (lambda _, field: field, lambda parent, field: f"{parent.name}_{field}", with_path):
        names = {key: name(*key) for key in fields}
        if len(set(names.values())) == len(names):
            break
    return names


def _without_siblings(sources: Sequence[Source]) -> list[Source]:
    """One source for each image that is spread over several OME-TIFFs, of its first file."""
    folders = Counter(s.path.parent for s in sources if s.field is None and _is_ome(s.path))
    found, others = [], set()
    for source in sources:
        if source.path in others:
            continue
        if folders[source.path.parent] > 1 and _is_ome(source.path):
            # A file that cannot be read is told of when it is opened.
            with contextlib.suppress(ValueError, OSError):
                siblings = readers.open_image(source.path, colour=True).info.siblings
                source = dataclasses.replace(source, siblings=siblings)
                others.update(siblings)
        found.append(source)
    return found


def _is_ome(path: Path) -> bool:
    return ".ome." in path.name.lower() and not is_zarr(path)


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """A name for each file: its stem, or where that is no name for one file alone, its path."""
    names = {path: _stem(path) for path in files}
    if len(set(names.values())) < len(names) and len(files) > 1:
        folders = {path: _top(path).parent.absolute() for path in files}
        base = os.path.commonpath(folders.values())
        for path, folder in folders.items():
            names[path] = "_".join([*folder.relative_to(base).parts, _stem(path)])
    return names


def _stem(path: Path) -> str:
    # An image inside a Zarr plate goes by its place there.
    top = _top(path)
    return "_".join([image_stem(top), *path.relative_to(top).parts])


def _top(path: Path) -> Path:
    """The file of an image, or the Zarr folder that it lies in."""
    inside = [folder for folder in (path, *path.parents) if folder.suffix.lower() == ".zarr"]
    return inside[-1] if inside else path
