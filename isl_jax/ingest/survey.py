"""The table of a dry run: a row a channel; of many fields the first and the faulty ones."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from isl_jax.ingest.fields import RawField
from isl_jax.ingest.overview import ChannelOverview

# So many fields are shown whole; of more, the first and the faulty ones, so many of each.
_ALL, _SOME = 100, 20
_MOST_FAULTS, _MOST_UNUSED = 50, 20

_COLUMNS = (
    "field", "group", "split", "channel", "shape", "dtype", "planes", "range", "saturated", "empty",
    "files", "objects",
)  # fmt: skip


class Survey:
    """What was found in the fields of a raw folder, field by field; `num_fields` are to come."""

    def __init__(self, num_fields: int, study: str):
        self._num_fields, self._study = num_fields, study
        self._rows: list[tuple[str, ...]] = [_COLUMNS]
        self._num_added = self._num_faulty = 0
        self._shapes: Counter[str] = Counter()
        self._num_labelled = 0
        self.faults: list[str] = []

    def add(
        self,
        field: RawField,
        split: str,
        channels: Sequence[ChannelOverview],
        faults: Sequence[str],
    ) -> None:
        """What `overview.look` found in a field."""
        self._num_added += 1
        self._num_faulty += bool(faults)
        self.faults += faults
        self._num_labelled += any(channel.objects for channel in channels)
        if channels:
            self._shapes[_shape(channels[0])] += 1
        shown = self._num_fields <= _ALL or self._num_added <= _SOME
        if not (shown or (faults and self._num_faulty <= _SOME)):
            return
        num_files = str(sum(map(len, field.files.values())))
        for number, channel in enumerate(channels):
            first = (field.name, field.group, split) if number == 0 else ("", "", "")
            files = num_files if number == 0 else ""
            self._rows.append((*first, *_cells(channel), files, self._objects(channel)))

    def lines(self, unused: Sequence[Path]) -> list[str]:
        """The table, the faults, the images that were not used, and for many fields a summary."""
        widths = [max(map(len, column)) for column in zip(*self._rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in self._rows
        ]
        lines += _first("fault: {}", self.faults, _MOST_FAULTS, "faults")
        lines += _first("not used: {}", list(map(str, unused)), _MOST_UNUSED, "files not used")
        if self._num_fields > _ALL:
            shapes = ", ".join(f"{n} of {shape}" for shape, n in self._shapes.most_common(4))
            lines.append(
                f"{self._num_fields} fields ({shapes}), {self._num_labelled} with labels, "
                f"{self._num_faulty} with faults; shown are the first {_SOME}"
                + (f" and up to {_SOME} with faults" if self._num_faulty else "")
            )
        return lines

    def _objects(self, channel: ChannelOverview) -> str:
        if channel.objects is None:
            return ""
        count, in_pieces = channel.objects
        one, many = ("nucleus", "nuclei") if self._study == "nucleus" else ("cell", "cells")
        text = f"{count} {one if count == 1 else many}"
        return f"{text}, {in_pieces} in several pieces" if in_pieces else text


def _first(form: str, items: Sequence[str], most: int, what: str) -> list[str]:
    shown = [form.format(item) for item in items[:most]]
    return shown + ([f"and {len(items) - most} more {what}"] if len(items) > most else [])


def _shape(channel: ChannelOverview) -> str:
    return f"{channel.height}×{channel.width}"


def _cells(channel: ChannelOverview) -> tuple[str, ...]:
    return (
        channel.channel,
        _shape(channel),
        str(channel.dtype),
        str(channel.planes),
        f"{channel.low:g}..{channel.high:g}",
        "-" if channel.saturated is None else f"{100 * channel.saturated:.2f} %",
        str(channel.empty),
    )
