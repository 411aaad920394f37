"""From the text of `--input` to files: folders, patterns, lists and Zarr images taken apart."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from isl_jax.ingest.listing import (
    IMAGE_SUFFIXES,
    image_stem,
    is_left_over,
    is_prepared,
    list_images,
    predicted_in,
)
from isl_jax.ingest.ome_zarr import is_zarr, list_zarr_images

_LIST = ".txt"


@dataclass(frozen=True)
class Expanded:
    """Files that the user points at, and images beside them that are passed over."""

    files: tuple[Path, ...]
    passed_over: tuple[Path, ...]


def split_inputs(text: str) -> list[str]:
    """The entries of a comma-separated list whose entries may hold commas themselves.

    From the left, as much as names something that is there (a path, or a pattern that matches)
    is one entry; what names nothing is cut at the next comma.
    """
    pieces, entries = text.split(","), []
    while pieces:
        joined = (",".join(pieces[:count]) for count in range(len(pieces), 1, -1))
        entry = next((one for one in joined if _is_there(one)), pieces[0])
        pieces = pieces[entry.count(",") + 1 :]
        if entry.strip():
            entries.append(entry if _is_there(entry) else entry.strip())
    return entries


def expand(inputs: Sequence[str]) -> Expanded:
    """All files of the entries, each once, in the order of the entries.

    What a folder or pattern holds of our own outputs, or as Cellpose's leftovers beside an image,
    is passed over; a file that is named is taken. Raises FileNotFoundError for an entry that names
    nothing, ValueError for a list that cannot be read.
    """
    files: dict[tuple[Path, str], Path] = {}
    passed_over: dict[Path, None] = {}
    inside: dict[Path, _Inside] = {}
    for path, is_named in (found for text in inputs for found in _expand(text)):
        # A folder that is reached on two ways, through links, is one folder.
        key = (path.parent.resolve(), path.name)
        if key in files:
            continue
        if not is_named:
            top = next((p for p in path.parents if p.suffix.lower() == ".zarr"), path)
            if top.parent not in inside:
                inside[top.parent] = _Inside.of(top.parent)
            what = inside[top.parent].kind(top)
            if what != "image":
                if what == "left over":
                    passed_over.setdefault(path)
                continue
        files[key] = path
    return Expanded(tuple(files.values()), tuple(passed_over))


@dataclass(frozen=True)
class _Inside:
    """What tells images of a folder from what programs left there."""

    stems: frozenset[str]
    outputs: frozenset[str]
    is_prepared: bool

    @classmethod
    def of(cls, folder: Path) -> "_Inside":
        names = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
        prepared = any(map(is_prepared, (folder, folder.parent)))
        return cls(frozenset(map(image_stem, names)), predicted_in(folder), prepared)

    def kind(self, path: Path) -> str:
        """`image`, `output` of isl-predict, or `left over` by another program."""
        if path.name in self.outputs:
            return "output"
        left_over = self.is_prepared or is_left_over(path, self.stems)
        return "left over" if left_over else "image"


def _is_there(text: str) -> bool:
    try:
        return Path(text).expanduser().exists() or bool(_matches(text))
    except (OSError, ValueError, RuntimeError):  # names too long, or of nobody's home
        return False


def _expand(text: str) -> Iterator[tuple[Path, bool]]:
    """Files, and whether the user named each itself."""
    path = Path(text).expanduser()
    if not path.exists() and not path.is_symlink():
        matches = [Path(match) for match in _matches(text)]
        if not matches:
            raise FileNotFoundError(
                f"{text}: no such file, folder or pattern that matches; several are separated by "
                "commas, or listed in a .txt file, one a line"
            )
        for match in matches:
            if match.is_dir():
                yield from _inside(match)
            elif match.suffix.lower() in IMAGE_SUFFIXES and match.is_file():
                yield match, False
    elif path.is_dir():
        yield from _inside(path, is_named=is_zarr(path))
    elif path.suffix.lower() == _LIST:
        for line in _lines(path):
            # Relative names count from the list, as they do wherever it is used from.
            try:
                yield from _expand(str(path.parent / Path(line).expanduser()))
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{path}: names {error}") from None
    else:
        yield path, True


def _inside(folder: Path, *, is_named: bool = False) -> Iterator[tuple[Path, bool]]:
    images = list_zarr_images(folder) if is_zarr(folder) else list_images(folder, left_over=True)
    for image in images:
        yield image, is_named


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); save the list as "
            "UTF-8"
        ) from None
    if "\0" in text:
        raise ValueError(f"{path}: is no list of names, it holds zero bytes; save it as UTF-8 text")
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _matches(text: str) -> list[str]:
    """Files and folders that a pattern matches, in name order.

    Brackets are part of a name where that leads somewhere: before the first `*` or `?`, or else
    in leading folders that exist, or else nowhere.
    """
    if not glob.has_magic(text):
        return []
    text = os.path.expanduser(text)  # noqa: PTH111, a pattern is no path
    first = re.search(r"[*?]", text)
    head = text[: first.start()] if first else ""
    folder = _leading_folder(text)
    for literal in dict.fromkeys((head, folder, "")):
        pattern = glob.escape(literal) + text[len(literal) :]
        if found := sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207, as above
            return found
    return []


def _leading_folder(text: str) -> str:
    """The longest beginning of a pattern, up to a `/`, that is a folder; it may be empty."""
    for match in reversed(list(re.finditer("/", text))):
        if Path(text[: match.end()]).is_dir():
            return text[: match.end()]
    return ""
