"""TIFF files: plain, OME, ImageJ and MetaMorph; header first, then the planes asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tifffile import TiffFile, TiffPageSeries

from isl_jax.ingest.images import (
    COLOURS,
    ImageFile,
    ImageInfo,
    damaged,
    numbered,
    unreadable_samples,
)
from isl_jax.ingest.tiff_metadata import (
    companion_of,
    metadata_of,
    siblings_of,
    the_series,
)
from isl_jax.ingest.tiff_soundness import check_chain, check_complete, check_declared, complaints

TIFF_SUFFIXES = (".tif", ".tiff", ".stk", ".btf")
_MIN_IS_WHITE = 0
# Axes that may be focal planes: those of files that do not say what their pages are, too.
_PLANES = "ZIQ"


class TiffImage(ImageFile):
    """The image that (part of) a TIFF file belongs to; ValueError if it cannot be used.

    Of an OME-TIFF that is spread over several files this is the whole image, or only what is in
    this file if `alone`. Pixels are as they look: white is high. A palette of greys is applied,
    unless `index`; one of colours is how a viewer shows the numbers, which are read.
    """

    def __init__(self, path: Path, *, alone: bool = False, index: bool = False):
        self._index = index
        with _opened(path) as (tiff, found):
            series = the_series(path, tiff)
            siblings = siblings_of(path, tiff, series)
            if not (alone and siblings):
                check_declared(path, tiff, series, found)
                self._take(path, tiff, series, siblings)
        if alone and siblings:
            with _opened(path, is_ome=False) as (tiff, found):
                check_declared(path, tiff, tiff.series[0], found)
                self._take(path, tiff, tiff.series[0], ())

    def _take(
        self, path: Path, tiff: TiffFile, series: TiffPageSeries, siblings: tuple[Path, ...]
    ) -> None:
        self._tiff, self._series = tiff, series
        self._palette = None if self._index else _greys(series)
        info = _info(path, tiff, series, siblings)
        # Of one bit, labels are the numbers: libraries write masks as "white is 0" and mean 1.
        self._inverted = info.is_inverted and not (self._index and series.dtype == bool)
        super().__init__(path, info)

    def _decode(self, channel: int, planes: list[int]) -> np.ndarray:
        with _reopened(self._tiff), complaints() as found:
            pixels = _read_planes(self.path, self._series, channel, planes)
        if found:
            raise damaged(self.path, found[0])
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8)
        if self._palette is not None:
            return self._palette[pixels]
        return _inverted(pixels, self._series.keyframe.bitspersample) if self._inverted else pixels

    def mapped(self, channel: int, plane: int) -> np.ndarray | None:
        """Memory-mapped where planes lie in one piece, uncompressed; None for others."""
        series, info = self._series, self.info
        changed = self._inverted or self._palette is not None or series.dtype == bool
        if changed or info.is_colour or info.siblings or series.axes[-2:] != "YX":
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
def _opened(path: Path, **options: bool) -> Iterator[tuple[TiffFile, list[str]]]:
    """A file, and what the library complains about while its header is read."""
    with complaints() as found, TiffFile(path, **options) as tiff:  # type: ignore[arg-type]
        if not tiff.pages:
            raise damaged(path, "no image inside")
        check_chain(path, tiff)
        companion = companion_of(path, tiff)
        if companion is None:
            yield tiff, found
            return
        with TiffFile(path, omexml=companion) as described:
            yield described, found


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


def _info(
    path: Path, tiff: TiffFile, series: TiffPageSeries, siblings: tuple[Path, ...]
) -> ImageInfo:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    num_samples = sizes.get("S", 1)
    with_alpha = num_samples == 2 and series.keyframe.extrasamples in ((1,), (2,))
    if num_samples not in (1, 3, 4) and not with_alpha:
        raise unreadable_samples(path, f"{num_samples}-samples-a-pixel")
    if num_samples > 1 and sizes.get("C", 1) > 1:
        raise unreadable_samples(path, f"{sizes['C']}-channel colour")
    if sizes.get("T", 1) > 1:
        raise ValueError(
            f"{path}: has {sizes['T']} time points, expected one; save each as a file of its own "
            "(or as slices, if they are focal planes)"
        )
    stacked = _stack_axes(series)
    if len(stacked) > 1 or not set(stacked) <= set(_PLANES):
        found = " × ".join(f"{sizes[axis]} {axis}" for axis in stacked)
        raise ValueError(
            f"{path}: has {len(stacked)} stack axes ({found}), expected one (focal planes); "
            "save each position as a file of its own"
        )
    if series.dtype is None or min(sizes.get("Y", 0), sizes.get("X", 0)) < 1:
        raise damaged(path, f"axes {series.axes!r}")
    if series.dtype.kind not in "biuf":
        raise ValueError(f"{path}: holds {series.dtype} values, expected integers or floats")
    check_complete(path, tiff, series)
    names, spacing = metadata_of(tiff, series, sizes.get("C", 1))
    if num_samples > 1:
        names = numbered(1) if with_alpha else COLOURS
    return ImageInfo(
        channels=names,
        planes=sizes[stacked[0]] if stacked else 1,
        height=sizes["Y"],
        width=sizes["X"],
        dtype=np.dtype(np.uint8 if series.dtype == bool else series.dtype.newbyteorder("=")),
        spacing=spacing,
        siblings=siblings,
        is_inverted=series.keyframe.photometric == _MIN_IS_WHITE,
    )


def _stack_axes(series: TiffPageSeries) -> list[str]:
    return [
        axis
        for axis, size in zip(series.axes, series.shape, strict=True)
        if axis not in "CSYX" and size > 1
    ]


def _greys(series: TiffPageSeries) -> np.ndarray | None:
    """The palette of a page, if all its colours are grey and it changes the numbers."""
    table = series.keyframe.colormap
    if table is None or (table != table[:1]).any():
        return None
    is_wide = len(table[0]) > 256
    greys = table[0] if is_wide or table.max() < 256 else table[0] >> 8
    greys = greys.astype(np.uint16 if is_wide else np.uint8)
    return None if np.array_equal(greys, np.arange(len(greys))) else greys


def _inverted(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Pixels of which the lowest value is white, as they look."""
    if pixels.dtype.kind == "u":
        return pixels.dtype.type(2**bits - 1) - pixels
    return -pixels if pixels.dtype.kind == "f" else ~pixels


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
