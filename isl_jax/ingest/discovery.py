"""Find the fields of a raw folder: which file holds which channel of which field."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from isl_jax.ingest import readers
from isl_jax.ingest.fields import Part, RawField, leave_out
from isl_jax.ingest.images import COLOURS, AskForError, not_grey
from isl_jax.ingest.layouts import OPERA_INDEX, Layout, label_channels
from isl_jax.ingest.listing import image_stem, is_left_over, list_images
from isl_jax.ingest.ome_zarr import is_zarr, list_zarr_labels
from isl_jax.ingest.opera import Found, match_opera

__all__ = ["Part", "RawField", "channels_there", "check_labels_found", "match_files"]

# What an error shows of many.
_SHOWN = 8


def match_files(
    source: Path, layout: Layout, *, exclude: str | None = None
) -> tuple[tuple[RawField, ...], tuple[Path, ...]]:
    """Find the fields of a folder: (fields in name order, image files that matched nothing).

    Files of channels that the layout has no use for count as matching nothing. `exclude` drops
    fields in whose name it is found, before any of their files is opened. A file that cannot be
    opened is the fault of its field. Raises FileNotFoundError or ValueError in one line.
    """
    source = Path(source)
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such folder; give the folder with the raw files")
    if not layout.inputs:
        raise ValueError("the layout names no input channel: give --inputs=channel[,channel]")
    excluded = _compiled(exclude, "--exclude") if exclude else None

    def is_kept(name: str) -> bool:
        return not (excluded and excluded.search(name))

    images = sorted(list_images(source, left_over=True))
    faults: dict[str, ValueError | OSError] = {}
    if layout.pattern == OPERA_INDEX:
        found, unmatched = match_opera(source, layout, images, is_kept)
    else:
        found, faults, unmatched = _match_names(source, layout, images, is_kept)
    if not found:
        raise ValueError(
            f"{source}: no file matches the layout ({layout.pattern}) with channels "
            f"{', '.join(layout.channels())}; {len(unmatched)} other images are there"
            + (f", such as {unmatched[0].name}" if unmatched else "")
        )
    fields = tuple(
        RawField(name, _group_of(name, layout), _in_plane_order(name, channels), faults.get(name))
        for name, channels in sorted(found.items())
    )
    return fields, tuple(unmatched)


def _match_names(
    source: Path, layout: Layout, images: Sequence[Path], is_kept: Callable[[str], bool]
) -> tuple[Found, dict[str, ValueError | OSError], list[Path]]:
    regex, used = layout.regex(), layout.channels()
    field_keys = sorted(key for key in regex.groupindex if key.startswith("field"))
    stems: dict[Path, set[str]] = defaultdict(set)
    for path in images:
        stems[path.parent].add(image_stem(path))
    found: Found = defaultdict(lambda: defaultdict(list))
    faults: dict[str, ValueError | OSError] = {}
    unmatched, siblings = [], set()
    for path in images:
        if path in siblings:  # read together with a file before it
            continue
        match = regex.fullmatch(layout.rename(path.relative_to(source).as_posix()))
        values = match.groupdict() if match else {}
        name = " ".join(values[key] for key in field_keys if values.get(key)).replace("/", "_")
        if match and not is_kept(name):
            continue
        parts: dict[str, Part] = {}
        if values.get("channel") is not None:
            parts = {values["channel"]: Part(path)} if values["channel"] in used else {}
        elif match and not is_left_over(path, stems[path.parent]):
            try:
                parts = _parts_inside(path, used)
            except AskForError as error:
                faults.setdefault(name, error)
                parts = {used[0]: Part(path)}
            except (ValueError, OSError) as error:
                faults.setdefault(name, type(error)(f"{error}; or {leave_out(name)}"))
                parts = {used[0]: Part(path)}
        if not parts:
            unmatched.append(path)
        for channel, part in parts.items():
            siblings.update(part.siblings)
            found[name][channel].append((int(values.get("plane") or 0), part))
    return found, faults, unmatched


def _parts_inside(path: Path, used: Sequence[str]) -> dict[str, Part]:
    """Used channels that a file holds, by their names in its metadata or by number."""
    image = readers.open_image(path, colour=True)
    if image.info.is_colour and not set(used).intersection(COLOURS):
        try:
            image = readers.open_image(path)  # grey, if its colours are equal
        except AskForError:
            raise not_grey(path, value=",".join(COLOURS)) from None
    info = image.info
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


def channels_there(
    source: Path, fields: Sequence[RawField], unmatched: Sequence[Path]
) -> tuple[list[str], list[str]]:
    """(Channels that files of the fields are called after or hold, ROI sets beside them).

    For the error that a channel is not found: at most a few, the more frequent ones first.
    """
    names: dict[str, int] = defaultdict(int)
    known = {field.name for field in fields}
    for path in unmatched:
        pieces = image_stem(path).split("_")
        for cut in range(len(pieces) - 1, 0, -1):
            if "_".join(pieces[:cut]) in known:
                names["_".join(pieces[cut:])] += 1
                break
    for field in fields[:_SHOWN]:
        for channel, parts in field.files.items():
            names[channel] += 1
            for part in parts:
                for name in part.info.channels if part.info else ():
                    names[name] += 1
                for name in list_zarr_labels(part.path) if is_zarr(part.path) else ():
                    names[name] += 1
    rois = sorted(path.name for path in Path(source).rglob("*.zip"))
    return sorted(names, key=lambda name: (-names[name], name))[:_SHOWN], rois[:_SHOWN]


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


def check_labels_found(
    source: Path, labels: str, fields: Sequence[RawField], unmatched: Sequence[Path]
) -> None:
    """ValueError if `labels`, written with commas between, were asked for and no field has any."""
    wanted = [set(label_channels(text)) for text in labels.split(",") if text]
    if not wanted or any(names <= field.files.keys() for names in wanted for field in fields):
        return
    if any(field.fault for field in fields):  # what these hold is not known, they are named
        return
    there, rois = channels_there(source, fields, unmatched)
    raise ValueError(
        f"{source}: --labels={labels} is found in no field; the channels there are "
        f"{', '.join(there) or 'none'}"
        + (
            f". ROI sets ({', '.join(rois[:3])}) are not read: make a label image of each, in "
            'ImageJ with the LOCI or MorphoLibJ plugins\' "ROIs to label image"'
            if rois
            else ""
        )
    )
