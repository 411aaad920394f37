"""Fields whose files fit together: found so before any is converted, then read."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isl_jax.data.preparation import Recipe
from isl_jax.ingest.discovery import Part, RawField
from isl_jax.ingest.images import COLOURS, ImageInfo
from isl_jax.ingest.labels import check_labels, read_labels
from isl_jax.ingest.layouts import Layout, Role, label_channels
from isl_jax.ingest.projections import PROJECTIONS
from isl_jax.ingest.readers import ImageFiles

# By role: where its planes are, in order, and what the files say.
_Headers = Mapping[str, Sequence[tuple[Part, ImageInfo]]]


@dataclass(frozen=True)
class CheckedField:
    """A raw field whose files fit together, known from their headers: `preparation.SourceField`.

    `labels`: the one of the layout's labels that it has.
    """

    raw: RawField
    layout: Layout
    height: int
    width: int
    channels: tuple[str, ...]
    stain_dtype: np.dtype | None
    labels: str | None
    pixel_size: float | None

    @property
    def name(self) -> str:
        """The raw field's, as is all that does not come from the headers."""
        return self.raw.name

    @property
    def group(self) -> str:  # noqa: D102
        return self.raw.group

    @property
    def sources(self) -> dict[str, Any]:  # noqa: D102
        return self.raw.sources

    @property
    def stamp(self) -> str:  # noqa: D102
        return self.raw.stamp

    def load(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Inputs [H, W, C], stain [H, W] or None (raw dtypes), labels int32 [H, W] or None.

        Raises ValueError for NaN, infinite or constant planes and for negative labels.
        """
        files, layout = ImageFiles(), self.layout
        planes = [p for role in layout.inputs for p in read_role(self.raw, role, files)]
        stain = read_role(self.raw, layout.stain, files)[0] if layout.stain else None
        labels = read_labels(self.raw, self.labels, files) if self.labels else None
        return np.stack(planes, axis=-1), stain, labels


def recipe_of(layout: Layout, **options: Any) -> Recipe:
    """The recipe for a data set of fields of a layout; options are those of `Recipe`."""
    stain = layout.stain.channel if layout.stain else None
    return Recipe(layout.study, stain, layout=layout.record(), **options)


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


def check_field(field: RawField, layout: Layout, files: ImageFiles | None = None) -> CheckedField:
    """Check one field by the headers of its files (floats: also their pixels, for NaN).

    Raises ValueError or OSError in one line that names the file and the remedy.
    """
    files = files or ImageFiles()
    roles = layout.roles()
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
        str(role): [(part, _header(part, files)) for part in parts_of(field, role, files)]
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
        check_labels(headers[str(mask)])
    for role in roles:
        if any(info.dtype.kind == "f" for _, info in headers[str(role)]):
            read_role(field, role, files)
    return CheckedField(
        raw=field,
        layout=layout,
        height=height,
        width=width,
        channels=tuple(n for role in layout.inputs for n in _plane_names(field, role, headers)),
        stain_dtype=headers[str(layout.stain)][0][1].dtype if layout.stain else None,
        labels=labels,
        pixel_size=layout.pixel_size or headers[str(layout.inputs[0])][0][1].pixel_size,
    )


def _leave_out(field: RawField) -> str:
    return f"leave the field out with --exclude='^{re.escape(field.name)}$'"


def parts_of(field: RawField, role: Role, files: ImageFiles | None = None) -> tuple[Part, ...]:
    """Where the planes of a role are, in their order; ValueError if colours are asked of grey."""
    parts = field.files[role.channel]
    if role.projection != "rgb":
        return parts
    files, colours = files or ImageFiles(), []
    for part in parts:
        info = files.open(part.path, colour=True).info
        if not info.is_colour:
            raise ValueError(
                f"{part.path}: is a grey image, but {role} was asked for; write {role.channel}"
            )
        colours += [Part(part.path, k, True, info) for k in range(len(COLOURS))]
    return tuple(colours)


def chosen_planes(
    field: RawField, role: Role, files: ImageFiles | None = None
) -> list[tuple[Part, int]]:
    """Where each chosen plane of a role is, in order: a part, and its number there."""
    files = files or ImageFiles()
    parts = parts_of(field, role, files)
    address = [(part, k) for part in parts for k in range(part.inspect(files).planes)]
    return [address[k] for k in role.select(len(address))]


def _header(part: Part, files: ImageFiles) -> ImageInfo:
    info = part.inspect(files)
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


def read_role(field: RawField, role: Role, files: ImageFiles | None = None) -> np.ndarray:
    """Planes of a role, projected: [P, H, W] in the raw dtype, finite and not constant."""
    stack = []
    for where, plane in planes_of(field, role, files):
        fault = plane_fault(field, where, plane)
        if fault:
            raise ValueError(fault)
        stack.append(plane)
    planes = np.stack(stack)
    return PROJECTIONS[role.projection](planes)[None] if role.projection in PROJECTIONS else planes


def planes_of(
    field: RawField, role: Role, files: ImageFiles | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Each chosen plane [H, W] of a role in turn, after the words that tell where it lies."""
    files = files or ImageFiles()
    for part, number in chosen_planes(field, role, files):
        (plane,) = part.read([number], files)
        is_stack = part.inspect(files).planes > 1
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
