"""Tables and arrays of ours, CSV and `.npy`: as we write them, read back only if they are whole.

Readers raise ValueError that names a damaged file and the remedy.
"""

import contextlib
import csv
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.files import written_whole

# Cells that spreadsheets would run as formulas, and those that were quoted so that they do not.
_FORMULA, _QUOTED = re.compile(r"'*[=+\-@\t\r]"), re.compile(r"''*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*(e[+-]?\d+)?|inf|nan)")
_HEADER = re.compile(
    rb"\{'descr': '([<>|]?[biuf]\d)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \}\s*"
)


def printable(text: object) -> str:
    r"""Text that can be printed and written: bytes of names that are no UTF-8 become `\udcff`."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV (UTF-8), whole or not at all.

    Text that a spreadsheet would run as a formula gets an apostrophe before it; numbers stay.
    """

    def cells(row: Sequence[Any]) -> list[Any]:
        texts = (printable(c) if isinstance(c, str) else c for c in row)
        return [f"'{c}" if isinstance(c, str) and _is_formula(c) else c for c in texts]

    with written_whole(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows(cells(row) for row in itertools.chain([columns], rows))


def _is_formula(text: str) -> bool:
    return bool(_FORMULA.match(text)) and not _NUMBER.fullmatch(text)


def read_csv(
    path: Path,
    *,
    remedy: str,
    text: Sequence[str] = (),
    needed: Sequence[str] = (),
    rows: int | None = None,
) -> list[dict[str, Any]]:
    """Rows of `write_csv`, numbers but for the columns `text`; `rows` is how many there must be."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            names, *lines = list(csv.reader(file, strict=True)) or [[]]
        missing = sorted({*text, *needed} - set(names))
        if missing or len(set(names)) < len(names):
            raise ValueError(f"its columns are {', '.join(names)}; {missing[:1]} is missing")
        if rows not in (None, len(lines)):
            raise ValueError(f"it has {len(lines)} rows, expected {rows}")
        return [
            {n: _text(c) if n in text else float(c) for n, c in zip(names, line, strict=True)}
            for line in lines
        ]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: damaged ({error}); {remedy}") from error


def _text(cell: str) -> str:
    plain = cell[1:] if _QUOTED.match(cell) else cell
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda m: chr(0xDC00 + int(m[1], 16)), plain)


def read_npy(
    path: Path, *, remedy: str, shape: Sequence[int] | None = None, dtype: Any = None
) -> np.ndarray:
    """An array of ours mapped into memory, of this shape and dtype (None: any of numbers)."""
    with path.open("rb") as file:
        start = file.read(10)
        header = file.read(int.from_bytes(start[8:], "little"))
        size = os.fstat(file.fileno()).st_size
    match = _HEADER.fullmatch(header) if start[:8] == b"\x93NUMPY\x01\x00" else None
    found = None
    with contextlib.suppress(TypeError):  # of a type that numpy does not have, `|b0`
        found = np.dtype(match[1].decode()) if match else None
    if match is None or found is None:
        raise ValueError(f"{path}: damaged (no array of numbers); {remedy}")
    sides = tuple(int(side) for side in match[2].split(b",") if side.strip())
    shape = sides if shape is None else tuple(shape)
    if sides != shape or (dtype is not None and found != np.dtype(dtype)):
        told = f"{found} {sides}, expected {dtype or 'numbers'} {shape}"
        raise ValueError(f"{path}: damaged (it holds {told}); {remedy}")
    offset = len(start) + len(header)
    if size != offset + int(np.prod(sides, dtype=object)) * found.itemsize:
        raise ValueError(f"{path}: damaged ({size} bytes do not hold {found} {sides}); {remedy}")
    return np.memmap(path, found, "r", offset, sides)
