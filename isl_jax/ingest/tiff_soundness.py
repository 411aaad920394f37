"""Whether a TIFF file is all that it says it is: damage found before any pixel is decoded."""

import logging
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import TiffFile, TiffPageSeries

from isl_jax.ingest.images import check_decoded_size, damaged

# What the library says of files that are sound as far as the pixels go. Missing files and planes
# of OME sets are found, and named, by themselves.
_HARMLESS = re.compile(
    r"Datetime|GDAL_NODATA|invalid self\.subfiletype|estimating ByteCounts|discontiguous storage|"
    r"fluoview_metadata|NDTiff\.index not found|MMStack file name is invalid|failed to read|"
    r"OME series is missing"
)
# Tags from here on are private to the program that wrote them.
_FIRST_PRIVATE_TAG = 32768
_UNCOMPRESSED, _YCBCR = 1, 6
# Width and height of a page, and the types of numbers that are not negative.
_SIDES, _COUNTS = (256, 257), (1, 3, 4, 16)

_heard = threading.local()


class _Listener(logging.Filter):
    """Takes the library's log lines while a file is read; they are errors of that file."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line goes to the log, too."""
        lines = getattr(_heard, "lines", None)
        if lines is None:
            return True
        text = record.getMessage()
        tag = re.search(r"TiffTag (\d+) ", text)
        is_private = bool(tag and int(tag[1]) >= _FIRST_PRIVATE_TAG)
        harmless = record.levelno < logging.WARNING or _HARMLESS.search(text) or is_private
        if not harmless:
            lines.append(re.sub(r"^<tifffile\.TiffFile '[^']*'> ", "", text))
        return False


logging.getLogger("tifffile").addFilter(_Listener())


@contextmanager
def complaints() -> Iterator[list[str]]:
    """What tifffile finds wrong meanwhile, a line each."""
    before, _heard.lines = getattr(_heard, "lines", None), []
    try:
        yield _heard.lines
    finally:
        _heard.lines = before


def check_chain(path: Path, tiff: TiffFile) -> None:
    """ValueError for what the library would never end at: pages in a circle, or without a size."""
    form, file = tiff.tiff, tiff.filehandle
    if form.is_ndpi:
        return
    at, seen = tiff.pages.first.offset, set()
    while 0 < at < file.size:
        if at in seen:
            raise damaged(path, "its list of pages is a loop")
        seen.add(at)
        file.seek(at)
        (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
        entries = file.read(tags * form.tagsize)
        for code, kind in struct.iter_unpack(
            f"{form.byteorder}HH{form.tagsize - 4}x", entries[: tags * form.tagsize]
        ):
            if code in _SIDES and kind not in _COUNTS:
                raise damaged(path, f"a page has a side that is no count (type {kind})")
        word = file.read(form.offsetsize)
        at = struct.unpack(form.offsetformat, word)[0] if len(word) == form.offsetsize else 0


def check_declared(path: Path, tiff: TiffFile, series: TiffPageSeries, found: list[str]) -> None:
    """ValueError if there are other planes than the metadata tell, or the file is damaged."""
    sizes = dict(zip(series.axes, series.shape, strict=True))
    planes = prod(size for axis, size in sizes.items() if axis not in "YXS")
    declared = (tiff.imagej_metadata or {}).get("images") if tiff.is_imagej else None
    if declared is not None and declared not in (planes, planes * sizes.get("S", 1)):
        raise damaged(path, f"it declares {declared} planes and has {planes}")
    if found:
        raise damaged(path, found[0])


def check_complete(path: Path, tiff: TiffFile, series: TiffPageSeries) -> None:
    """A truncated copy is found from its table of strips, a forged size from its bytes."""
    pages = [page for page in series.pages if page is not None]
    itemsize = np.dtype(series.dtype).itemsize
    for page in pages:
        file = path if page.parent is tiff else path.parent / page.parent.filename
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        size = file.stat().st_size
        end = max((offset + count for offset, count in segments), default=0)
        key: Any = page.keyframe
        check_decoded_size(file, prod(key.shape) * itemsize, size)
        plain = key.compression == _UNCOMPRESSED and key.photometric != _YCBCR
        if plain and len(pages) == 1 and prod(series.shape) > prod(key.shape):
            # Planes one after the other, of which only the first has an entry.
            end = max(end, segments[0][0] + prod(series.shape) * itemsize)
        if end > size:
            raise ValueError(
                f"{file}: is truncated ({size} bytes of at least {end}); copy the file again"
            )
        needed = (prod(key.shape) * key.bitspersample + 7) // 8
        if plain and sum(count for _, count in segments) < needed:
            raise damaged(file, f"{needed} bytes of pixels declared, fewer there")
