"""Planes of a field's channels: where they are, what is wrong with them, and their pixels."""

from collections.abc import Iterator

import numpy as np

from isl_jax.ingest.fields import Part, RawField, leave_out
from isl_jax.ingest.images import COLOURS
from isl_jax.ingest.layouts import Role
from isl_jax.ingest.projections import PROJECTIONS
from isl_jax.ingest.readers import ImageFiles


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
            f"{where}: has {bad} pixels that are NaN or infinite; repair it, or "
            f"{leave_out(field.name)}"
        )
    if plane.min() == plane.max():
        return (
            f"{where}: every pixel is {plane.flat[0]}, an empty plane; acquire it again, or "
            f"{leave_out(field.name)}"
        )
    return None
