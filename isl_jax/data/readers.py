"""Microscope files to arrays: what a file holds, without its pixels; then single planes of it."""

import logging
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tifffile import TiffFile, TiffFileError, TiffPageSeries

# A damaged file is reported once, by the exception raised here, not by log lines of the decoder.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

TIFF_SUFFIXES = (".tif", ".tiff", ".stk", ".btf")
IMAGE_SUFFIXES = (*TIFF_SUFFIXES, ".png")


@dataclass(frozen=True)
class ImageInfo:
    """What a file holds, known without reading pixels.

    planes × height × width for each of the named channels; pixel_size in µm where the file tells.
    """

    channels: tuple[str, ...]
    planes: int
    height: int
    width: int
    dtype: np.dtype
    pixel_size: float | None = None


def inspect(path: Path) -> ImageInfo:
    """Channels, planes, size and dtype of an image file; reads its header only.

    Raises FileNotFoundError, PermissionError or ValueError in one line that names the file.
    """
    path = _existing(path)
    if path.suffix.lower() == ".png":
        return _inspect_png(path)
    with _open_tiff(path) as tiff:
        return _tiff_info(path, tiff)


def read(path: Path, *, channel: int = 0, planes: list[int] | None = None) -> np.ndarray:
    """Planes of one channel: [P, H, W] in the file's own dtype, only these planes being decoded.

    Raises ValueError in one line that names the file if its pixels cannot be decoded.
    """
    path = _existing(path)
    try:
        if path.suffix.lower() == ".png":
            return _read_png(path)[None]
        with _open_tiff(path) as tiff:
            info = _tiff_info(path, tiff)
            wanted = list(range(info.planes)) if planes is None else planes
            return _read_tiff_planes(tiff.series[0], channel, wanted)
    except (ValueError, OSError):
        raise
    except Exception as error:  # decoders raise types of their own (zlib.error, Jpeg2KError, …)
        raise ValueError(_unreadable(path, error)) from error


def _existing(path: Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise ValueError(
            f"{path}: not an image file that can be read ({', '.join(IMAGE_SUFFIXES)})"
        )
    try:
        path.open("rb").close()
    except PermissionError:
        raise PermissionError(f"{path}: permission denied; make the file readable") from None
    return path


def _unreadable(path: Path, error: Exception) -> str:
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{path}: cannot be read, the file is damaged or incomplete ({detail}); copy it again"


# TIFF: plain, OME, ImageJ, MetaMorph ------------------------------------------------------------


def _open_tiff(path: Path) -> TiffFile:
    try:
        tiff = TiffFile(path)
    except (TiffFileError, struct.error, ValueError, IndexError) as error:
        raise ValueError(_unreadable(path, error)) from error
    if not tiff.pages or not tiff.series:
        tiff.close()
        raise ValueError(_unreadable(path, ValueError("no image inside")))
    return tiff


def _tiff_info(path: Path, tiff: TiffFile) -> ImageInfo:
    series = tiff.series[0]
    sizes = dict(zip(series.axes, series.shape, strict=True))
    if sizes.get("S", 1) > 1:
        raise ValueError(
            f"{path}: is a colour image ({sizes['S']} samples a pixel), expected grey; "
            "save each channel as a grey image"
        )
    stacked = [axis for axis in series.axes if axis not in "CSYX" and sizes[axis] > 1]
    if len(stacked) > 1:
        found = " × ".join(f"{sizes[axis]} {axis}" for axis in stacked)
        raise ValueError(
            f"{path}: has two stack axes ({found}), expected one (focal planes); "
            "save each time point or position as a file of its own"
        )
    if series.dtype is None or "Y" not in sizes or "X" not in sizes:
        raise ValueError(_unreadable(path, ValueError(f"axes {series.axes!r}")))
    _check_complete(path, tiff, series)
    return ImageInfo(
        channels=tuple(str(k) for k in range(sizes.get("C", 1))),
        planes=sizes[stacked[0]] if stacked else 1,
        height=sizes["Y"],
        width=sizes["X"],
        dtype=np.dtype(series.dtype.newbyteorder("=")),
    )


def _check_complete(path: Path, tiff: TiffFile, series: TiffPageSeries) -> None:
    """A truncated copy is found from its table of strips, before any pixel is decoded."""
    size = path.stat().st_size
    for page in series.pages:
        if page is None or page.parent is not tiff:
            continue
        segments = zip(page.dataoffsets, page.databytecounts, strict=False)
        end = max((offset + count for offset, count in segments), default=0)
        if end > size:
            raise ValueError(
                f"{path}: is truncated ({size} bytes of at least {end}); copy the file again"
            )


def _read_tiff_planes(series: TiffPageSeries, channel: int, planes: list[int]) -> np.ndarray:
    leading = [axis for axis in series.axes if axis not in "YX"]
    sizes = dict(zip(series.axes, series.shape, strict=True))
    shape = [sizes[axis] for axis in leading]
    if len(series.pages) != int(np.prod(shape)):
        # Several planes share a page (planar or volumetric storage): decode once, then choose.
        whole = np.moveaxis(
            series.asarray(), [series.axes.index("Y"), series.axes.index("X")], [-2, -1]
        ).reshape(-1, sizes["Y"], sizes["X"])
        return np.stack([whole[_page(leading, shape, channel, plane)] for plane in planes])
    pages = [series.pages[_page(leading, shape, channel, plane)] for plane in planes]
    return np.stack([np.reshape(_page_array(page), (sizes["Y"], sizes["X"])) for page in pages])


def _page_array(page) -> np.ndarray:
    if page is None:
        raise ValueError("a plane is missing from the file")
    return page.asarray()


def _page(leading: list[str], shape: list[int], channel: int, plane: int) -> int:
    """Number of the page that holds a plane of a channel, for axes in file order."""
    index = [
        channel if axis == "C" else plane if size > 1 else 0
        for axis, size in zip(leading, shape, strict=True)
    ]
    return int(np.ravel_multi_index(index, shape)) if shape else 0


# PNG ---------------------------------------------------------------------------------------------


def _inspect_png(path: Path) -> ImageInfo:
    with path.open("rb") as file:
        head = file.read(33)
    if len(head) < 33 or head[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError(_unreadable(path, ValueError("not a PNG file")))
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    if colour != 0:
        kind = {2: "RGB", 3: "palette", 4: "grey + alpha", 6: "RGBA"}.get(colour, str(colour))
        raise ValueError(f"{path}: is a {kind} image, expected grey; save it as a grey image")
    return ImageInfo(("0",), 1, height, width, np.dtype(np.uint16 if bits == 16 else np.uint8))


def _read_png(path: Path) -> np.ndarray:
    from imagecodecs import PngError, png_decode

    _inspect_png(path)
    try:
        return png_decode(path.read_bytes())
    except PngError as error:
        raise ValueError(_unreadable(path, error)) from error
