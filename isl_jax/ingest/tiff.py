"""TIFF files: plain, OME, ImageJ and MetaMorph; header first, then the planes asked for."""

import logging
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from tifffile import TiffFile, TiffFileError, TiffPageSeries

from isl_jax.ingest.images import COLOURS, MICROMETRES, ImageFile, ImageInfo, damaged, not_grey

# A damaged file is reported once, by the exception raised here, not by log lines of the decoder.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

TIFF_SUFFIXES = (".tif", ".tiff", ".stk", ".btf")


class TiffImage(ImageFile):
    """The first image that (part of) a TIFF file belongs to; ValueError if it cannot be used.

    Of an OME-TIFF that is spread over several files this is the whole image, or only what is in
    this file if `alone`.
    """

    def __init__(self, path: Path, *, alone: bool = False):
        with _opened(path) as tiff:
            # Files of one experiment may each describe all images of it: theirs is not the first.
            own = (
                s for s in tiff.series if any(p is not None and p.parent is tiff for p in s.pages)
            )
            series = next(own, tiff.series[0])
            in_several = alone and bool(_siblings(path, tiff, series))
            if not in_several:
                self._tiff, self._series = tiff, series
                super().__init__(path, _info(path, tiff, series))
        if in_several:
            with _opened(path, is_ome=False) as tiff:
                self._tiff, self._series = tiff, tiff.series[0]
                super().__init__(path, _info(path, tiff, self._series))

    def _decode(self, channel: int, planes: list[int]) -> np.ndarray:
        with _reopened(self._tiff):
            pixels = _read_planes(self.path, self._series, channel, planes)
        return pixels.astype(np.uint8) if pixels.dtype == bool else pixels

    def mapped(self, channel: int, plane: int) -> np.ndarray | None:
        """Memory-mapped where planes lie in one piece, uncompressed; None for others."""
        series, info = self._series, self.info
        if info.is_colour or info.siblings or series.dtype == bool or series.axes[-2:] != "YX":
            return None
        with _reopened(self._tiff):
            offset = series.dataoffset
        if offset is None or len(info.channels) * info.planes != np.prod(series.shape[:-2]):
            return None
        dtype = np.dtype(self._tiff.byteorder + np.dtype(series.dtype).char)
        array = np.memmap(self.path, dtype, "r", offset, series.shape)
        stack = _stack_axes(series)
        return array[tuple(
            channel if axis == "C" else plane if axis in stack else 0 for axis in series.axes[:-2]
        )]  # fmt: skip


@contextmanager
def _opened(path: Path, **options: bool) -> Iterator[TiffFile]:
    try:
        tiff = TiffFile(path, **options)  # type: ignore[arg-type]
    except (TiffFileError, struct.error, ValueError, IndexError) as error:
        raise damaged(path, error) from error
    with tiff:
        if not tiff.pages or not tiff.series:
            raise damaged(path, "no image inside")
        yield tiff


@contextmanager
def _reopened(tiff: TiffFile) -> Iterator[None]:
    """While pages of a file are read whose header was read before."""
    was_closed = tiff.filehandle.closed
    tiff.filehandle.open()
    try:
        yield
    finally:
        if was_closed:
            tiff.filehandle.close()


def _siblings(path: Path, tiff: TiffFile, series: TiffPageSeries) -> tuple[Path, ...]:
    """Other files that hold pages of an image; ValueError if one that is named there is gone."""
    if len(series.pages) == 1 or not tiff.is_ome:
        return ()
    parents = [page.parent for page in series.pages if page is not None]
    names = dict.fromkeys(parent.filename for parent in parents if parent is not tiff)
    if None in series.pages and tiff.ome_metadata:
        described = dict.fromkeys(re.findall(r'FileName="([^"]+)"', tiff.ome_metadata))
        gone = [name for name in described if not (path.parent / name).exists()]
        reason = f"{gone[0]} is not beside it" if gone else "planes are missing"
        raise ValueError(
            f"{path}: its metadata describe an image in several files, but {reason}; copy all files"
        )
    return tuple(path.parent / name for name in names)


def _info(path: Path, tiff: TiffFile, series: TiffPageSeries) -> ImageInfo:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    num_samples = sizes.get("S", 1)
    if num_samples not in (1, 3, 4) or (num_samples > 1 and sizes.get("C", 1) > 1):
        raise not_grey(path, f"{num_samples}-samples-a-pixel")
    stacked = _stack_axes(series)
    if len(stacked) > 1:
        found = " × ".join(f"{sizes[axis]} {axis}" for axis in stacked)
        raise ValueError(
            f"{path}: has {len(stacked)} stack axes ({found}), expected one (focal planes); "
            "save each time point or position as a file of its own"
        )
    if series.dtype is None or "Y" not in sizes or "X" not in sizes:
        raise damaged(path, f"axes {series.axes!r}")
    if series.dtype.kind not in "biuf":
        raise ValueError(f"{path}: holds {series.dtype} values, expected integers or floats")
    _check_complete(path, tiff, series)
    names, pixel_size = _metadata(tiff, sizes.get("C", 1))
    if num_samples > 1:
        names = COLOURS
    return ImageInfo(
        channels=names,
        planes=sizes[stacked[0]] if stacked else 1,
        height=sizes["Y"],
        width=sizes["X"],
        dtype=np.dtype(np.uint8 if series.dtype == bool else series.dtype.newbyteorder("=")),
        pixel_size=pixel_size,
        siblings=_siblings(path, tiff, series),
    )


def _stack_axes(series: TiffPageSeries) -> list[str]:
    return [
        axis
        for axis, size in zip(series.axes, series.shape, strict=True)
        if axis not in "CSYX" and size > 1
    ]


def _check_complete(path: Path, tiff: TiffFile, series: TiffPageSeries) -> None:
    """A truncated copy is found from its table of strips, before any pixel is decoded."""
    for page in series.pages:
        if page is None:
            continue
        file = path if page.parent is tiff else path.parent / page.parent.filename
        segments = zip(page.dataoffsets, page.databytecounts, strict=False)
        end = max((offset + count for offset, count in segments), default=0)
        size = file.stat().st_size
        if end > size:
            raise ValueError(
                f"{file}: is truncated ({size} bytes of at least {end}); copy the file again"
            )


def _metadata(tiff: TiffFile, num_channels: int) -> tuple[tuple[str, ...], float | None]:
    """Channel names (numbers where the file has none) and the pixel size in µm, if it is told."""
    numbers = tuple(str(k) for k in range(num_channels))
    if tiff.is_ome and tiff.ome_metadata:
        return _ome_metadata(tiff.ome_metadata, numbers)
    if tiff.is_imagej and tiff.imagej_metadata:
        unit = MICROMETRES.get(str(tiff.imagej_metadata.get("unit", "")).replace("\\u00B5", "µ"))
        resolution = tiff.pages.first.tags.get("XResolution")
        if unit and resolution is not None and resolution.value[0]:
            return numbers, unit * resolution.value[1] / resolution.value[0]
    return numbers, None


def _ome_metadata(xml: str, numbers: tuple[str, ...]) -> tuple[tuple[str, ...], float | None]:
    try:
        pixels = ElementTree.fromstring(xml).find("{*}Image/{*}Pixels")
    except ElementTree.ParseError:
        pixels = None
    if pixels is None:
        return numbers, None
    names = [channel.get("Name") for channel in pixels.findall("{*}Channel")]
    if len(names) != len(numbers) or not all(names):
        names = list(numbers)
    size = pixels.get("PhysicalSizeX")
    unit = MICROMETRES.get(pixels.get("PhysicalSizeXUnit", "µm").replace("μ", "µ"))
    return tuple(map(str, names)), float(size) * unit if size and unit else None


def _read_planes(path: Path, series: TiffPageSeries, channel: int, planes: list[int]) -> np.ndarray:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    leading = [axis for axis in series.axes if axis not in "YX"]
    shape = [sizes[axis] for axis in leading]
    stack = _stack_axes(series)
    wanted = []
    for plane in planes:
        index = [channel if axis in "CS" else plane if axis in stack else 0 for axis in leading]
        wanted.append(int(np.ravel_multi_index(index, shape)) if shape else 0)
    if len(series.pages) != int(np.prod(shape)):
        # Several planes share a page (planar or volumetric storage): decode once, then choose.
        ends = [series.axes.index("Y"), series.axes.index("X")]
        whole = np.moveaxis(series.asarray(), ends, [-2, -1])
        return whole.reshape(-1, sizes["Y"], sizes["X"])[wanted]
    out = []
    for number in wanted:
        page = series.pages[number]
        if page is None:
            raise damaged(path, f"plane {number} is missing")
        with _reopened(page.parent):  # of an image in several files, perhaps another one
            out.append(page.asarray().reshape(sizes["Y"], sizes["X"]))
    return np.stack(out)
