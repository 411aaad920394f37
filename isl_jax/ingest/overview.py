"""What a raw folder holds, for a look before preparing it: a line a channel, and every fault."""

from dataclasses import dataclass

import numpy as np

from isl_jax.ingest.checks import CheckedField, plane_fault, planes_of, read_labels
from isl_jax.ingest.layouts import Layout


@dataclass(frozen=True)
class ChannelOverview:
    """One channel of a field in one role, over its chosen planes.

    `low` and `high` in raw units; `saturated`, the fraction of pixels at the dtype's maximum, None
    where that says nothing (floats, labels); `empty`, planes of which every pixel is the same.
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


def look(item: CheckedField, layout: Layout) -> tuple[list[ChannelOverview], list[str]]:
    """Read all planes of a field: its channels in order, and its faults, a line each."""
    channels, faults = [], []
    for role in [*layout.inputs, *([layout.stain] if layout.stain else [])]:
        name = f"{role} (stain)" if role is layout.stain else str(role)
        planes = []
        for where, plane in planes_of(item.raw, role):
            fault = plane_fault(item.raw, where, plane)
            if fault and fault not in faults:
                faults.append(fault)
            planes.append(plane)
        channels.append(_overview(name, np.stack(planes)))
    if item.label_channel:
        try:
            labels = read_labels(item.raw, item.label_channel)
        except ValueError as error:
            faults.append(str(error))
        else:
            channels.append(_overview(f"{item.label_channel} (labels)", labels[None]))
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
