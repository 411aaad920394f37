import struct
import zlib

import numpy as np
import pytest
from imagecodecs import png_encode

from isl_jax.ingest import readers

GREY = (np.arange(7 * 9).reshape(7, 9) * 3).astype(np.uint8)


def chunk(name, content):
    return (
        struct.pack(">I", len(content)) + name + content
        + struct.pack(">I", zlib.crc32(name + content))
    )  # fmt: skip


def write_png(path, rows, *, bits=8, kind=0, width=9, extra=()):
    """A PNG of unfiltered rows [H, bytes a row]; extra: further parts, before the pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    pixels = b"".join(b"\0" + bytes(row) for row in rows)
    parts = [chunk(b"IHDR", header), *(chunk(*part) for part in extra)]
    parts += [chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def test_transparency_of_a_grey_image_is_ignored(tmp_path):
    spotted = write_png(tmp_path / "a.png", GREY, extra=[(b"tRNS", b"\0\6")])
    alpha = write_png(tmp_path / "b.png", np.stack([GREY, GREY[::-1]], -1).reshape(7, 18), kind=4)
    for path in (spotted, alpha):
        assert readers.inspect(path).channels == ("0",)
        np.testing.assert_array_equal(readers.read(path)[0], GREY)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_equal_colours_are_one_grey_plane_and_unequal_ones_are_refused(tmp_path, alpha, dtype):
    pixels = np.stack([GREY] * 3 + [GREY[::-1]] * alpha, -1).astype(dtype)
    (tmp_path / "x.png").write_bytes(png_encode(pixels))
    assert readers.inspect(tmp_path / "x.png").channels == ("0",)
    np.testing.assert_array_equal(readers.read(tmp_path / "x.png")[0], GREY)
    assert readers.inspect(tmp_path / "x.png", colour=True).channels == ("R", "G", "B")
    pixels[3, 4, 2] += 1
    (tmp_path / "x.png").write_bytes(png_encode(pixels))
    with pytest.raises(ValueError, match=r"x.png: is a colour image, expected grey") as caught:
        readers.read(tmp_path / "x.png")
    assert "--" not in str(caught.value)  # options are the command's to word


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_is_read_as_it_looks_or_by_its_numbers(tmp_path, bits):
    numbers = (np.arange(8) % 2**bits)[None].repeat(3, 0).astype(np.uint8)
    rows = np.packbits((numbers[..., None] >> np.arange(bits - 1, -1, -1)) & 1, axis=None).reshape(
        3, -1
    )
    colours = np.arange(3 * 2**bits).reshape(-1, 3)[::-1].astype(np.uint8)
    options = {"bits": bits, "kind": 3, "width": 8}
    path = write_png(
        tmp_path / "c.png", rows, **options,
        extra=[(b"PLTE", colours.tobytes()), (b"tRNS", b"\0")],
    )  # fmt: skip
    labels = readers.open_image(path, index=True)
    assert labels.info.channels == ("0",)
    np.testing.assert_array_equal(labels.read()[0], numbers)
    with pytest.raises(ValueError, match="colour image"):
        readers.inspect(path)
    np.testing.assert_array_equal(
        readers.read(path, channel=1, colour=True)[0], colours[numbers, 1]
    )
    greys = np.stack([colours[:, 0]] * 3, -1)
    grey = write_png(tmp_path / "g.png", rows, **options, extra=[(b"PLTE", greys.tobytes())])
    np.testing.assert_array_equal(readers.read(grey)[0], greys[numbers, 0])


def test_an_animation_and_a_forged_size_are_refused(tmp_path):
    path = write_png(tmp_path / "x.png", GREY, extra=[(b"acTL", struct.pack(">II", 3, 0))])
    with pytest.raises(ValueError, match=r"x.png: holds 3 images"):
        readers.inspect(path)
    write_png(path, GREY, width=2**31 - 1)
    with pytest.raises(ValueError, match=r"x.png: .*it declares"):
        readers.inspect(path)
    path.write_bytes(path.read_bytes().replace(b"IHDR\x7f", b"IHDR\0"))
    with pytest.raises(ValueError, match=r"x.png: .*wrong checksum"):
        readers.inspect(path)
