"""PNG files: grey, with colours, with a palette; transparency is ignored."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isl_jax.ingest.images import (
    COLOURS,
    ImageFile,
    ImageInfo,
    check_decoded_size,
    damaged,
    several_images,
)

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE, _GREY_ALPHA = 0, 3, 4


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    bits: int
    kind: int
    palette: np.ndarray  # uint8 [N, 3]
    frames: int = 1


class PngImage(ImageFile):
    """A PNG file; of one with a palette the colours it shows, or the numbers behind if `index`.

    A palette of greys, and grey with transparency, are grey images.
    """

    def __init__(self, path: Path, *, index: bool = False):
        header = self._header = _header(path)
        self._index = index and header.kind == _PALETTE
        palette = header.palette
        grey = header.kind in (_GREY, _GREY_ALPHA) or self._index
        if header.kind == _PALETTE:
            grey |= bool((palette == palette[:, :1]).all())
        if header.frames > 1:
            raise several_images(path, [f"frame {k}" for k in range(header.frames)])
        dtype = np.dtype(np.uint16 if header.bits == 16 else np.uint8)
        pixels = header.width * header.height
        check_decoded_size(path, 4 * pixels * dtype.itemsize, path.stat().st_size)
        channels = ("0",) if grey else COLOURS
        super().__init__(path, ImageInfo(channels, 1, header.height, header.width, dtype))

    def _decode(self, channel: int, planes: list[int]) -> np.ndarray:
        from imagecodecs import png_decode

        info, header = self.info, self._header
        pixels = png_decode(_bare(self.path))
        if pixels.shape[:2] != (info.height, info.width):
            raise damaged(self.path, f"{pixels.shape} pixels decoded")
        if header.kind == _PALETTE:
            # The decoder stretches fewer bits to the whole range.
            pixels = pixels // (255 // (2**header.bits - 1))
            if not self._index:
                pixels = header.palette[pixels]
        if pixels.ndim == 3:
            pixels = pixels[..., channel]
        return np.stack([pixels for _ in planes])


def _chunks(file) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(name, content, the whole chunk) of each part of a PNG file."""
    if file.read(8) != _SIGNATURE:
        raise ValueError("not a PNG file")
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        rest = file.read(min(length, 1 << 31) + 4)
        if len(rest) != length + 4:
            raise ValueError("it ends too early")
        if zlib.crc32(name + rest[:-4]) != int.from_bytes(rest[-4:]):
            raise ValueError(f"wrong checksum of {name.decode('latin-1')}")
        yield name, rest[:-4], head + rest
        if name == b"IEND":
            return


def _header(path: Path) -> _Header:
    """What stands before the pixels."""
    first, palette, frames = None, b"", 1
    with path.open("rb") as file:
        for name, content, _ in _chunks(file):
            if name == b"IDAT":
                break
            if name == b"IHDR":
                first = struct.unpack(">IIBB", content[:10])
            elif name == b"PLTE":
                palette = content
            elif name == b"acTL":
                frames = int.from_bytes(content[:4])
    if first is None:
        raise ValueError("no header")
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    return _Header(*first, palette=colours, frames=frames)


def _bare(path: Path) -> bytes:
    """The file with nothing but its header and pixels; those of a palette as if they were grey.

    Decoders would apply palette, transparent colour and gamma, which are no measurements.
    """
    parts = [_SIGNATURE]
    with path.open("rb") as file:
        for name, content, whole in _chunks(file):
            if name == b"IHDR" and content[9] == _PALETTE:
                changed = name + content[:9] + bytes([_GREY]) + content[10:]
                whole = whole[:4] + changed + zlib.crc32(changed).to_bytes(4)
            if name in (b"IHDR", b"IDAT", b"IEND"):
                parts.append(whole)
    return b"".join(parts)
