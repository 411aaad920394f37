"""Image files to arrays: what a file holds, without its pixels; then single planes of it.

TIFF and OME-Zarr have modules of their own; PNG and NumPy files are read here, and of Cellpose's
pickled `_seg.npy` the masks, without running what it contains.
"""

import os
import pickle
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from isl_jax.ingest.images import COLOURS, ImageFile, ImageInfo, damaged, not_grey
from isl_jax.ingest.ome_zarr import ZarrImage, is_zarr, list_zarr_images
from isl_jax.ingest.tiff import TIFF_SUFFIXES, TiffImage

IMAGE_SUFFIXES = (*TIFF_SUFFIXES, ".png", ".npy", ".zarr")


def list_images(folder: Path) -> Iterator[Path]:
    """All image files below a folder in name order; hidden files are passed over.

    A Zarr folder counts as one image, a Zarr plate as one image a field.
    """
    for parent, folders, files in os.walk(folder):
        here = Path(parent)
        groups = sorted(name for name in folders if is_zarr(here / name))
        folders[:] = sorted(set(folders).difference(groups))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in sorted([*files, *groups]):
            if name.startswith("."):
                continue
            if name in groups:
                yield from list_zarr_images(here / name)
            elif Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield here / name


class ImageFiles:
    """The images opened so far, so that each header is read once: keep one for each field."""

    def __init__(self) -> None:
        self._opened: dict[tuple[Path, bool], ImageFile] = {}

    def open(self, path: Path, *, colour: bool = False, alone: bool = False) -> ImageFile:
        """`open_image`, or what it gave before."""
        image = self._opened.get((path, alone))
        if image is None:
            image = self._opened[path, alone] = open_image(path, colour=True, alone=alone)
        return _believed(image, colour)


def open_image(path: Path, *, colour: bool = False, alone: bool = False) -> ImageFile:
    """An image with its channels, planes, size and dtype, known from its header alone.

    A colour image is refused unless `colour`: then its channels are R, G and B. An OME-TIFF that is
    spread over several files is the whole image, or only what is in this file if `alone`.
    Raises FileNotFoundError, PermissionError or ValueError in one line that names the file.
    """
    path = _existing(path)
    suffix = path.suffix.lower()
    if is_zarr(path):
        return ZarrImage(path)
    if suffix == ".npy":
        return _NumpyImage(path)
    image = _PngImage(path) if suffix == ".png" else TiffImage(path, alone=alone)
    return _believed(image, colour)


def _believed(image: ImageFile, colour: bool) -> ImageFile:
    if image.info.is_colour and not colour:
        raise not_grey(image.path, "colour", "--inputs=NAME:rgb")
    return image


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


def _existing(path: Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if is_zarr(path):
        return path
    if path.suffix.lower() not in IMAGE_SUFFIXES or path.is_dir():
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise ValueError(f"{path}: not an image that can be read ({kinds})")
    try:
        path.open("rb").close()
    except PermissionError:
        raise PermissionError(f"{path}: permission denied; make the file readable") from None
    return path


class _PngImage(ImageFile):
    def __init__(self, path: Path):
        with path.open("rb") as file:
            head = file.read(33)
        if len(head) < 33 or head[:8] != b"\x89PNG\r\n\x1a\n":
            raise damaged(path, "not a PNG file")
        width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
        if colour in (3, 4):
            raise not_grey(path, {3: "palette", 4: "grey + alpha"}[colour])
        dtype = np.dtype(np.uint16 if bits == 16 else np.uint8)
        super().__init__(path, ImageInfo(COLOURS if colour else ("0",), 1, height, width, dtype))

    def _decode(self, channel: int, planes: list[int]) -> np.ndarray:
        from imagecodecs import png_decode

        info, pixels = self.info, png_decode(self.path.read_bytes())
        if pixels.shape[:2] != (info.height, info.width) or (pixels.ndim == 3) != info.is_colour:
            raise damaged(self.path, f"{pixels.shape} pixels decoded")
        return pixels[None, ..., channel] if info.is_colour else pixels[None]


class _NumpyImage(ImageFile):
    """A .npy image [H, W] or [P, H, W], memory-mapped."""

    def __init__(self, path: Path):
        array = _read_npy(path)
        if array.ndim not in (2, 3) or array.dtype.kind not in "biuf":
            raise ValueError(
                f"{path}: holds {array.dtype} {list(array.shape)}, expected numbers [H, W] or "
                "[P, H, W]"
            )
        self._stack = array[None] if array.ndim == 2 else array
        planes, height, width = self._stack.shape
        super().__init__(path, ImageInfo(("0",), planes, height, width, array.dtype))

    def _decode(self, channel: int, planes: list[int]) -> np.ndarray:
        return np.asarray(self._stack[planes])

    def mapped(self, channel: int, plane: int) -> np.ndarray:
        return self._stack[plane]


# All that a dictionary of arrays, numbers and text needs; nothing here acts when it is called.
_HARMLESS = {
    (module, name)
    for package in ("numpy.core", "numpy._core")
    for module, name in (
        (f"{package}.multiarray", "_reconstruct"),
        (f"{package}.multiarray", "scalar"),
        (f"{package}.numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict")}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not an array")
        return super().find_class(module, name)


def _read_npy(path: Path) -> np.ndarray:
    """Array of a .npy file, memory-mapped; of a Cellpose `_seg.npy`, its masks.

    Pickled content is rebuilt from arrays, numbers and text alone: a file that refers to anything
    else is refused (ValueError) before any of it runs.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            if not header(file)[2].hasobject:
                return np.load(path, mmap_mode="r")
            content = _ArraysOnly(file).load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: is not read, {error}; save the masks as a TIFF file") from None
    except (ValueError, EOFError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise damaged(path, error) from error
    content = content.item() if isinstance(content, np.ndarray) and content.shape == () else content
    masks = content.get("masks") if isinstance(content, dict) else None
    if not isinstance(masks, np.ndarray):
        raise ValueError(f"{path}: has no array 'masks', as Cellpose's _seg.npy files have")
    return masks
