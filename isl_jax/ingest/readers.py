"""Image files to arrays: what a file holds, without its pixels; then single planes of it."""

import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from isl_jax.ingest.images import (
    COLOURS,
    GreyOfColours,
    ImageFile,
    ImageInfo,
    not_grey,
    numbered,
    reading,
)
from isl_jax.ingest.listing import IMAGE_SUFFIXES
from isl_jax.ingest.npy import NumpyImage
from isl_jax.ingest.ome_zarr import ZarrImage, is_zarr
from isl_jax.ingest.png import PngImage
from isl_jax.ingest.tiff import TIFF_SUFFIXES, TiffImage

__all__ = [
    "IMAGE_SUFFIXES", "TIFF_SUFFIXES", "ImageFile", "ImageFiles", "inspect",
    "open_image", "read",
]  # fmt: skip


class ImageFiles:
    """The images opened so far, so that each header is read once: keep one for each field."""

    def __init__(self) -> None:
        self._opened: dict[tuple[Path, bool, bool], ImageFile] = {}
        self._greys: dict[tuple[Path, bool, bool], ImageFile] = {}

    def open(
        self, path: Path, *, colour: bool = False, alone: bool = False, index: bool = False
    ) -> ImageFile:
        """`open_image`, or what it gave before."""
        key = (path, alone, index)
        image = self._opened.get(key)
        if image is None:
            image = open_image(path, colour=True, alone=alone, index=index)
            self._opened[key] = image
        if colour or not image.info.is_colour:
            return image
        if key not in self._greys:
            self._greys[key] = _grey(image)
        return self._greys[key]


def open_image(
    path: Path, *, colour: bool = False, alone: bool = False, index: bool = False
) -> ImageFile:
    """An image with its channels, planes, size and dtype, known from its header.

    A colour image is refused unless its colours are equal everywhere, which makes it grey, or
    unless `colour`: then its channels are R, G and B. An OME-TIFF that is spread over several files
    is the whole image, or only what is in this file if `alone`. `index`: of a palette the numbers,
    not the colours that it gives them, as labels are drawn.
    Whatever is wrong is a FileNotFoundError, PermissionError, OSError or ValueError in one line
    that names the file.
    """
    path = Path(path)
    with reading(path):
        _check_existing(path)
        suffix = path.suffix.lower()
        if is_zarr(path):
            return ZarrImage(path)
        if suffix == ".npy":
            return NumpyImage(path)
        if suffix == ".png":
            image: ImageFile = PngImage(path, index=index)
        else:
            image = TiffImage(path, alone=alone, index=index)
    return _grey(image) if image.info.is_colour and not colour else image


def _grey(image: ImageFile) -> ImageFile:
    """The grey image that was saved as a colour image; ValueError if it has colours."""
    info = image.info
    for plane in range(info.planes):
        red = image.read(0, [plane])
        for colour in range(1, len(COLOURS)):
            if not np.array_equal(red, image.read(colour, [plane])):
                raise not_grey(image.path)
    return GreyOfColours(image, replace(info, channels=numbered(1)))


def inspect(path: Path, *, colour: bool = False, alone: bool = False) -> ImageInfo:
    """What an image holds; see `open_image`."""
    return open_image(path, colour=colour, alone=alone).info


def read(
    path: Path,
    *,
    channel: int = 0,
    planes: Sequence[int] | None = None,
    colour: bool = False,
    alone: bool = False,
) -> np.ndarray:
    """Planes of one channel: [P, H, W] in the file's own dtype; see `open_image`."""
    return open_image(path, colour=colour, alone=alone).read(channel, planes)


def _check_existing(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if is_zarr(path):
        return
    if path.suffix.lower() not in IMAGE_SUFFIXES or not stat.S_ISREG(path.stat().st_mode):
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise ValueError(f"{path}: not an image that can be read ({kinds})")
    try:
        path.open("rb").close()
    except PermissionError:
        raise PermissionError(f"{path}: permission denied; make the file readable") from None
