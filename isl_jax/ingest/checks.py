"""Do the files of each field fit together? Asked of all fields before any is converted."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isl_jax.ingest import readers
from isl_jax.ingest.annotations import instances_from_interior, instances_from_mask
from isl_jax.ingest.discovery import Part, RawField
from isl_jax.ingest.images import COLOURS, ImageInfo
from isl_jax.ingest.layouts import Layout, Role, label_channels
from isl_jax.ingest.projections import PROJECTIONS, bin_average, bin_labels

# By role: where its planes are, in order, and what the files say.
_Headers = Mapping[str, Sequence[tuple[Part, ImageInfo]]]


@dataclass(frozen=True)
class CheckedField:
    """A raw field whose files have been found to fit together, known from their headers."""

    raw: RawField
    height: int
    width: int
    channels: tuple[str, ...]
    stain_dtype: np.dtype | None
    label_channel: str | None
    pixel_size: float | None


def check_fields(
    fields: Iterable[RawField], layout: Layout, *, on_field: Callable[[], object] = lambda: None
) -> tuple[CheckedField, ...]:
    """Check every field by `check_field`, and that all give the same channels and stain dtype.

    `on_field` is called after each.
    """
    checked = []
    for field in fields:
        checked.append(check_field(field, layout))
        on_field()
    first = checked[0]
    for item in checked[1:]:
        if len(item.channels) != len(first.channels):
            raise ValueError(
                f"field {item.raw.name!r} gives {len(item.channels)} input channels "
                f"({', '.join(item.channels)}), but field {first.raw.name!r} {len(first.channels)}"
                "; choose planes with --inputs=channel[1,2] or exclude fields"
            )
        if item.stain_dtype != first.stain_dtype:
            raise ValueError(
                f"the stain of field {item.raw.name!r} is {item.stain_dtype}, of field "
                f"{first.raw.name!r} {first.stain_dtype}; convert them to one type"
            )
    return tuple(checked)


def check_field(field: RawField, layout: Layout) -> CheckedField:
    """Check one field by the headers of its files (floats: also their pixels, for NaN).

    Raises ValueError or OSError in one line that names the file and the remedy.
    """
    roles = [*layout.inputs, *([layout.stain] if layout.stain else [])]
    for role in roles:
        if role.channel not in field.files:
            raise ValueError(
                f"field {field.name!r} has no {role.channel!r} image (it has "
                f"{', '.join(sorted(field.files))}); add it, or {_leave_out(field)}"
            )
    labels = next(
        (text for text in layout.labels if field.files.keys() >= set(label_channels(text))), None
    )
    masks = [Role(channel) for channel in label_channels(labels)] if labels else []
    headers = {
        str(role): [(part, _header(part)) for part in parts_of(field, role)]
        for role in [*roles, *masks]
    }
    height, width = _common_size(field, headers)
    if layout.stain and len(_plane_names(field, layout.stain, headers)) > 1:
        name = layout.stain.channel
        raise ValueError(
            f"{field.files[name][0].path}: the stain has several planes; say how to reduce them, "
            f"for instance --stain={name}:max"
        )
    for mask in masks:
        _check_labels(headers[str(mask)])
    for role in roles:
        if any(info.dtype.kind == "f" for _, info in headers[str(role)]):
            read_role(field, role)
    return CheckedField(
        raw=field,
        height=height,
        width=width,
        channels=tuple(n for role in layout.inputs for n in _plane_names(field, role, headers)),
        stain_dtype=headers[str(layout.stain)][0][1].dtype if layout.stain else None,
        label_channel=labels,
        pixel_size=layout.pixel_size or headers[str(layout.inputs[0])][0][1].pixel_size,
    )


def _leave_out(field: RawField) -> str:
    return f"leave the field out with --exclude='^{re.escape(field.name)}$'"


def parts_of(field: RawField, role: Role) -> tuple[Part, ...]:
    """Where the planes of a role are, in their order; ValueError if colours are asked of grey."""
    parts = field.files[role.channel]
    if role.projection != "rgb":
        return parts
    for part in parts:
        if not readers.inspect(part.path, colour=True).is_colour:
            raise ValueError(
                f"{part.path}: is a grey image, but {role} was asked for; write {role.channel}"
            )
    return tuple(Part(part.path, k, True) for part in parts for k in range(len(COLOURS)))


def _header(part: Part) -> ImageInfo:
    info = part.inspect()
    if part.channel is None and len(info.channels) > 1:
        raise ValueError(
            f"{part.path}: holds {len(info.channels)} channels ({', '.join(info.channels)}) where "
            "one is expected; use a pattern without {channel}, then channels go by these names"
        )
    return info


def _common_size(field: RawField, headers: _Headers) -> tuple[int, int]:
    sizes = {
        part.path: (info.height, info.width) for pairs in headers.values() for part, info in pairs
    }
    (first, size), *others = sizes.items()
    for path, other in others:
        if other != size:
            raise ValueError(
                f"{path}: is {other[0]}×{other[1]} pixels, but {first.name} of the same field is "
                f"{size[0]}×{size[1]}; all channels of a field must have one size"
            )
    return size


def _plane_names(field: RawField, role: Role, headers: _Headers) -> list[str]:
    """Names of the network channels that one role gives."""
    count = sum(info.planes for _, info in headers[str(role)])
    try:
        chosen = role.select(count)
    except ValueError as error:
        raise ValueError(f"{field.files[role.channel][0].path}: {error}") from None
    if role.projection == "rgb":
        return [f"{role.channel}:{COLOURS[k % 3]}" for k in chosen]
    if role.projection != "none":
        return [f"{role.channel}:{role.projection}"]
    return [role.channel] if count == 1 else [f"{role.channel}[{plane}]" for plane in chosen]


def _check_labels(headers: Sequence[tuple[Part, ImageInfo]]) -> None:
    path, dtype = headers[0][0].path, headers[0][1].dtype
    if dtype.kind not in "iu":
        raise ValueError(f"{path}: labels are {dtype}, expected integers; save as uint16")
    planes = sum(info.planes for _, info in headers)
    if planes > 1:
        raise ValueError(f"{path}: labels have {planes} planes, expected one; save a 2-D mask")


def load_field(
    checked: CheckedField, layout: Layout, *, binning: int = 1
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Read one field: inputs [H, W, C], stain [H, W] or None (raw dtypes), labels int32 or None.

    `binning` averages blocks of images and takes the most frequent label of each block. Raises
    ValueError for NaN, infinite or constant planes and for negative labels.
    """
    field = checked.raw
    planes = [plane for role in layout.inputs for plane in read_role(field, role)]
    stain = read_role(field, layout.stain)[0] if layout.stain else None
    labels = read_labels(field, checked.label_channel) if checked.label_channel else None
    if binning > 1:
        planes = [bin_average(plane, binning) for plane in planes]
        stain = None if stain is None else bin_average(stain, binning)
        labels = None if labels is None else bin_labels(labels, binning)
    return np.stack(planes, axis=-1), stain, labels


def read_labels(field: RawField, text: str) -> np.ndarray:
    """Instance ids, read or made from what `text` (a layout's label) names."""
    part, *edge = [field.files[channel][0] for channel in label_channels(text)]
    labels = part.read()[0]
    if edge:
        return instances_from_interior(labels, edge[0].read()[0])
    if text.endswith(":components"):
        return instances_from_mask(labels)
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        raise ValueError(
            f"{part.path}: labels go from {labels.min()} to {labels.max()}, expected 0 for "
            f"background up to {np.iinfo(np.int32).max}; number the cells from 1"
        )
    return labels.astype(np.int32)


def read_role(field: RawField, role: Role) -> np.ndarray:
    """Planes of a role, projected: [P, H, W] in the raw dtype, finite and not constant."""
    stack = []
    for where, plane in planes_of(field, role):
        fault = plane_fault(field, where, plane)
        if fault:
            raise ValueError(fault)
        stack.append(plane)
    planes = np.stack(stack)
    return PROJECTIONS[role.projection](planes)[None] if role.projection in PROJECTIONS else planes


def planes_of(field: RawField, role: Role) -> Iterator[tuple[str, np.ndarray]]:
    """Each chosen plane [H, W] of a role in turn, after the words that tell where it lies."""
    parts = parts_of(field, role)
    address = [(part, k) for part in parts for k in range(part.inspect().planes)]
    for part, number in (address[k] for k in role.select(len(address))):
        (plane,) = part.read([number])
        is_stack = len(address) > len(parts)
        yield f"{part.path}, plane {number}" if is_stack else str(part.path), plane


def plane_fault(field: RawField, where: str, plane: np.ndarray) -> str | None:
    """Why a plane is of no use, in one line: not finite, or constant; None if it is sound."""
    if plane.dtype.kind == "f" and not np.isfinite(plane).all():
        bad = int(plane.size - np.isfinite(plane).sum())
        return (
            f"{where}: has {bad} pixels that are NaN or infinite; repair it, or {_leave_out(field)}"
        )
    if plane.min() == plane.max():
        return (
            f"{where}: every pixel is {plane.flat[0]}, an empty plane; acquire it again, or "
            f"{_leave_out(field)}"
        )
    return None
