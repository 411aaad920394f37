"""What a raw folder holds, for a look before preparing it: a line a channel, and every fault."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from isl_jax.ingest.checked import check_field
from isl_jax.ingest.fields import RawField
from isl_jax.ingest.labels import count_pieces, label_fault, read_labels
from isl_jax.ingest.layouts import Layout
from isl_jax.ingest.planes import plane_fault, planes_of
from isl_jax.ingest.readers import ImageFiles


@dataclass(frozen=True)
class ChannelOverview:
    """One channel of a field in one role, over its chosen planes.

    `low` and `high` in raw units; `saturated`, the fraction of pixels at the dtype's maximum, None
    where that says nothing (floats, labels); `empty`, planes of which every pixel is the same.
    `objects`: of labels, the number of ids, and of those that are in several pieces.
    """

    channel: str
    height: int
    width: int
    dtype: np.dtype
    planes: int
    low: float
    high: float
    saturated: float | None
    empty: int
    objects: tuple[int, int] | None = None


def look(
    field: RawField, layout: Layout, *, word: Callable[[Exception], str] = str
) -> tuple[list[ChannelOverview], list[str]]:
    """Check a field and read all its planes: its channels in order, and its faults, a line each.

    `word` puts an error into the words of the command.
    """
    channels, faults, files = [], [], ImageFiles()
    try:
        checked = check_field(field, layout, files)
        for role in layout.roles():
            planes = []
            for where, plane in planes_of(field, role, files):
                fault = plane_fault(field, where, plane)
                if fault and fault not in faults:
                    faults.append(fault)
                planes.append(plane)
            name = f"{role} (stain)" if role is layout.stain else str(role)
            channels.append(_overview(name, np.stack(planes)))
        if checked.labels:
            labels = read_labels(field, checked.labels, files, ignore=layout.ignore)
            objects = count_pieces(labels)
            row = _overview(f"{checked.labels} (labels)", labels[None])
            channels.append(replace(row, objects=objects))
            fault = label_fault(field, checked.labels, *objects, layout.study)
            faults += [word(fault)] if fault else []
    except (ValueError, OSError) as error:
        faults.append(word(error))
    return channels, faults


def _overview(channel: str, stack: np.ndarray) -> ChannelOverview:
    counts = stack.dtype.kind == "u"
    return ChannelOverview(
        channel=channel,
        height=stack.shape[1],
        width=stack.shape[2],
        dtype=stack.dtype,
        planes=len(stack),
        low=float(stack.min()),
        high=float(stack.max()),
        saturated=float(np.mean(stack == np.iinfo(stack.dtype).max)) if counts else None,
        empty=sum(bool(plane.min() == plane.max()) for plane in stack),
    )
