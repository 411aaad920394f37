"""Microscope files to arrays: what a file holds, without its pixels; then single planes of it."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from isl_jax.ingest.images import COLOURS, ImageInfo, damaged, not_grey
from isl_jax.ingest.numpy_files import inspect_npy, read_npy
from isl_jax.ingest.ome_zarr import inspect_zarr, is_zarr, list_zarr_images, read_zarr
from isl_jax.ingest.tiff import TIFF_SUFFIXES, inspect_tiff, read_tiff

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


def inspect(path: Path, *, colour: bool = False, alone: bool = False) -> ImageInfo:
    """Channels, planes, size and dtype of an image, from its header alone.

    A colour image is refused unless `colour`: then its channels are R, G and B. An OME-TIFF that is
    spread over several files is the whole image, or only what is in this file if `alone`.
    Raises FileNotFoundError, PermissionError or ValueError in one line that names the file.
    """
    path = _existing(path)
    if is_zarr(path):
        return inspect_zarr(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return inspect_npy(path)
    info = _inspect_png(path) if suffix == ".png" else inspect_tiff(path, alone=alone)
    if info.is_colour and not colour:
        raise not_grey(path, "colour", "--inputs=NAME:rgb")
    return info


def read(
    path: Path,
    *,
    channel: int = 0,
    planes: list[int] | None = None,
    colour: bool = False,
    alone: bool = False,
) -> np.ndarray:
    """Planes of one channel: [P, H, W] in the file's own dtype, only these planes being decoded.

    `colour` and `alone` as in `inspect`. Raises ValueError in one line that names the file if its
    pixels cannot be decoded.
    """
    path = _existing(path)
    info = inspect(path, colour=colour, alone=alone)
    wanted = list(range(info.planes)) if planes is None else list(planes)
    try:
        if is_zarr(path):
            return read_zarr(path, channel, wanted)
        if path.suffix.lower() == ".png":
            pixels = _read_png(path, info)
            return pixels[None, ..., channel] if info.is_colour else pixels[None]
        if path.suffix.lower() == ".npy":
            array = read_npy(path)
            return np.asarray(array[None] if array.ndim == 2 else array)[wanted]
        return read_tiff(path, channel, wanted, alone=alone)
    except (ValueError, OSError) as error:
        if str(path) in str(error):
            raise
        raise damaged(path, error) from error
    except Exception as error:  # decoders raise types of their own (zlib.error, LzwError, …)
        raise damaged(path, error) from error


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


def _inspect_png(path: Path) -> ImageInfo:
    with path.open("rb") as file:
        head = file.read(33)
    if len(head) < 33 or head[:8] != b"\x89PNG\r\n\x1a\n":
        raise damaged(path, "not a PNG file")
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    if colour in (3, 4):
        kind = {3: "palette", 4: "grey + alpha"}[colour]
        raise not_grey(path, kind)
    channels = COLOURS if colour else ("0",)
    return ImageInfo(channels, 1, height, width, np.dtype(np.uint16 if bits == 16 else np.uint8))


def _read_png(path: Path, info: ImageInfo) -> np.ndarray:
    from imagecodecs import png_decode

    pixels = png_decode(path.read_bytes())
    if pixels.shape[:2] != (info.height, info.width) or (pixels.ndim == 3) != info.is_colour:
        raise damaged(path, f"{pixels.shape} pixels decoded")
    return pixels
