"""Fields whose files fit together: found so before any is converted, then read."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isl_jax.data.recipe import Recipe
from isl_jax.ingest.fields import Part, RawField, leave_out
from isl_jax.ingest.images import COLOURS, AskForError, ImageInfo
from isl_jax.ingest.labels import check_labels, count_pieces, label_fault, label_info, read_labels
from isl_jax.ingest.layouts import Layout, Role, label_channels
from isl_jax.ingest.planes import (
    chosen_planes,
    parts_of,
    plane_fault,
    planes_of,
    read_role,
)
from isl_jax.ingest.readers import ImageFiles

__all__ = [
    "CheckedField", "check_field", "check_fields", "chosen_planes", "parts_of", "plane_fault",
    "planes_of", "read_role", "recipe_of",
]  # fmt: skip

# By role: where its planes are, in order, and what the files say.
_Headers = Mapping[str, Sequence[tuple[Part, ImageInfo]]]


@dataclass(frozen=True)
class CheckedField:
    """A raw field whose files fit together, known from their headers: `recipe.SourceField`.

    `labels`: the one of the layout's labels that it has. `spacing`: sides (y, x) of a pixel, µm.
    """

    raw: RawField
    layout: Layout
    height: int
    width: int
    channels: tuple[str, ...]
    stain_dtype: np.dtype | None
    labels: str | None
    spacing: tuple[float, float] | None

    @property
    def pixel_size(self) -> float | None:
        """Side in µm of the square that is as large as a pixel; None where it is unknown."""
        return math.sqrt(self.spacing[0] * self.spacing[1]) if self.spacing else None

    @property
    def is_square(self) -> bool:
        """Whether the sides of a pixel agree within 1 % (or are not known)."""
        return self.spacing is None or math.isclose(*self.spacing, rel_tol=0.01)

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

        Labels below 0 are ignored pixels. Raises ValueError for NaN, infinite or constant planes
        and for labels that are none.
        """
        files, layout = ImageFiles(), self.layout
        planes = [p for role in layout.inputs for p in read_role(self.raw, role, files)]
        stain = read_role(self.raw, layout.stain, files)[0] if layout.stain else None
        labels = None
        if self.labels:
            labels = read_labels(self.raw, self.labels, files, ignore=layout.ignore)
        if labels is not None and self.labels:
            fault = label_fault(self.raw, self.labels, *count_pieces(labels), layout.study)
            if fault:
                raise fault
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
    _check_names(checked, layout)
    return tuple(checked)


def _check_names(checked: Sequence[CheckedField], layout: Layout) -> None:
    """ValueError if a channel chosen by number is not the same one in all files that name it."""
    labels = [Role(name) for text in layout.labels for name in label_channels(text)]
    for role in [*layout.roles(), *labels]:
        if not role.channel.isdecimal():
            continue
        names: dict[str, Part] = {}
        for item in checked:
            for part in item.raw.files.get(role.channel, ()):
                if part.own_name is not None:
                    names.setdefault(part.own_name.casefold(), part)
        if len(names) > 1:
            one, other = list(names.values())[:2]
            raise ValueError(
                f"{other.path}: channel {role.channel} is {other.own_name!r}, but in "
                f"{one.path} it is {one.own_name!r}; ask for the channel by its name, or exclude "
                "fields"
            )


def check_field(field: RawField, layout: Layout, files: ImageFiles | None = None) -> CheckedField:
    """Check one field by the headers of its files (floats: also their pixels, for NaN).

    Raises ValueError or OSError in one line that names the file and the remedy.
    """
    if field.fault:
        raise field.fault
    files = files or ImageFiles()
    roles = layout.roles()
    for role in roles:
        if role.channel not in field.files:
            raise ValueError(
                f"field {field.name!r} has no {role.channel!r} image (it has "
                f"{', '.join(sorted(field.files))}); add it, or {leave_out(field.name)}"
            )
    labels = next(
        (text for text in layout.labels if field.files.keys() >= set(label_channels(text))), None
    )
    masks = [Role(channel) for channel in label_channels(labels)] if labels else []
    headers = {
        str(role): [(part, _header(part, files)) for part in parts_of(field, role, files)]
        for role in roles
    } | {
        str(mask): [(part, label_info(part, files)) for part in field.files[mask.channel]]
        for mask in masks
    }
    height, width = _common_size(field, headers)
    if layout.stain and len(_plane_names(field, layout.stain, headers)) > 1:
        name = layout.stain.channel
        raise AskForError(
            f"{field.files[name][0].path}: the stain has several planes; say how to reduce them",
            "stain",
            f"{name}:max",
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
        spacing=(layout.pixel_size, layout.pixel_size)
        if layout.pixel_size
        else headers[str(layout.inputs[0])][0][1].spacing,
    )


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
