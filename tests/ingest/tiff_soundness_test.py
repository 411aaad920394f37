"""Damaged and hostile files end in one line that names them; half a file passes for no whole."""

import json
import os
import shutil
import struct

import numpy as np
import pytest
import tifffile
from imagecodecs import png_encode

from isl_jax.ingest import readers
from tests.ingest.readers_test import write_zarr

STACK = np.random.default_rng(0).integers(0, 60000, (8, 24, 20)).astype(np.uint16)
OPTIONS = {
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "imagej, a page a plane": {"imagej": True, "metadata": {"axes": "ZYX"}, "contiguous": False},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
    "shaped": {"photometric": "minisblack"},
    "plain": {"photometric": "minisblack", "metadata": None},
    "compressed": {"photometric": "minisblack", "compression": "zlib"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_half_a_stack_never_passes_for_a_whole_one(tmp_path, name):
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    tifffile.imwrite(whole, STACK, **OPTIONS[name])
    assert readers.inspect(whole).planes == 8
    size = whole.stat().st_size
    for end in range(size // 10, size - 1, size // 10):
        shutil.copy(whole, cut)
        os.truncate(cut, end)
        try:  # where every pixel is there, the list of pages may be cut
            np.testing.assert_array_equal(readers.read(cut), STACK)
        except ValueError as error:
            assert str(cut) in str(error)
        else:
            assert end > STACK.nbytes


@pytest.mark.parametrize("told", [b"images=9", b"images=4", b"slices=4"])
def test_imagej_counts_its_planes(tmp_path, told):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "ZYX"})
    path.write_bytes(path.read_bytes().replace(told[:-1] + b"8", told))
    with pytest.raises(ValueError, match=r"x.tif: "):
        readers.inspect(path)


def directory(offset, following, *, width=20, height=24, compression=1):
    """A page of 8 bits whose pixels are at 8, and the offset of the page after it."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, 480)]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return struct.pack("<H", len(tags)) + body + struct.pack("<I", following)


@pytest.mark.parametrize("length", [1, 2, 150])
def test_pages_that_lead_in_a_circle_end(tmp_path, length):
    size, start = len(directory(0, 0)), 488
    offsets = [start + k * size for k in range(length)]
    pages = [directory(at, nxt) for at, nxt in zip(offsets, [*offsets[1:], start], strict=True)]
    path = tmp_path / "x.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", start) + bytes(480) + b"".join(pages))
    with pytest.raises(ValueError, match=r"x.tif: .*loop"):
        readers.read(path)


def test_a_page_of_negative_width_ends(tmp_path):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, STACK[0, :, :16])
    short = struct.pack("<HHI", 256, 4, 1)  # a signed 8-bit number instead: -16
    data = path.read_bytes()
    assert short in data
    path.write_bytes(data.replace(short + b"\x10", struct.pack("<HHI", 256, 6, 1) + b"\xf0"))
    with pytest.raises(ValueError, match=r"x.tif: .*no count"):
        readers.inspect(path)


@pytest.mark.parametrize("compression", [1, 5, 8, 50000])
def test_a_size_that_the_file_cannot_hold_is_refused_before_it_is_decoded(tmp_path, compression):
    page = directory(0, 0, width=200_000, height=200_000, compression=compression)
    path = tmp_path / "x.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 488) + bytes(480) + page)
    with pytest.raises(ValueError, match=r"x.tif: .*it declares 4e\+10 bytes"):
        readers.inspect(path)


def originals(folder):
    """A small file of each kind."""
    image = (STACK[0] % 250).astype(np.uint8)
    for name, options in OPTIONS.items():
        tifffile.imwrite(folder / f"{name}.tif", STACK[:2, :8, :9], **options)
    tifffile.imwrite(folder / "lzw.tif", image, compression="lzw", tile=(16, 16))
    (folder / "grey.png").write_bytes(png_encode(image))
    (folder / "colour.png").write_bytes(png_encode(np.stack([image] * 3, -1)))
    np.save(folder / "x.npy", image)
    np.save(folder / "x_seg.npy", {"masks": image, "n": [1.5, "a"]}, allow_pickle=True)
    return sorted(path for path in folder.iterdir())


def mutated(data: bytes, rng) -> bytes:
    """A few bytes changed, cut out or put in, mostly where headers are."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, max(1, min(len(data), 600) if rng.random() < 0.8 else len(data))))
        kind = rng.integers(0, 4)
        if kind == 0:
            data[at : at + 1] = bytes([rng.integers(0, 256)])
        elif kind == 1:
            data[at : at + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\1\0\0\0"])
        elif kind == 2:
            del data[at : at + int(rng.integers(1, 9))]
        else:
            del data[at + int(rng.integers(0, len(data))) :]
    return bytes(data)


def test_whatever_is_changed_in_a_file_it_is_read_or_refused_by_name(tmp_path):
    (tmp_path / "sound").mkdir()
    rng = np.random.default_rng(0)
    refused = 0
    for path in originals(tmp_path / "sound"):
        data = path.read_bytes()
        for _ in range(25):
            spoilt = tmp_path / path.name
            spoilt.write_bytes(mutated(data, rng))
            try:
                readers.read(spoilt)
            except (ValueError, OSError) as error:
                assert str(spoilt) in str(error) and "\n" not in str(error)
                refused += 1
    assert refused > 100


def test_whatever_is_changed_in_the_metadata_of_a_zarr_it_is_read_or_refused(tmp_path):
    rng, values = np.random.default_rng(0), [None, 0, -1, 1.5, "x", [], {}, [[]], 2**70, "../0"]

    def spoil(value):
        """Replace one value inside, at any depth."""
        if isinstance(value, dict | list) and value and rng.random() < 0.85:
            keys = list(value) if isinstance(value, dict) else list(range(len(value)))
            key = keys[rng.integers(len(keys))]
            value[key] = spoil(value[key])
            return value
        return values[rng.integers(len(values))]

    for version, files in (
        ("0.4", (".zattrs", "0/.zarray")),
        ("0.5", ("zarr.json", "0/zarr.json")),
    ):
        image = tmp_path / f"{version}.zarr"
        write_zarr(image, STACK[:2], "cyx", version=version, names=["a", "b"])
        for name in files:
            sound = (image / name).read_text()
            for _ in range(40):
                (image / name).write_text(json.dumps(spoil(json.loads(sound))))
                try:
                    readers.read(image)
                except (ValueError, OSError) as error:
                    assert str(image) in str(error) and "\n" not in str(error), error
            (image / name).write_text(sound)
        assert readers.read(image, channel=1).shape == (1, 24, 20)


def test_log_lines_of_the_library_outside_a_reader_stay_in_the_log(caplog):
    with caplog.at_level("WARNING", "tifffile"):
        tifffile.logger().warning("heard")
    assert caplog.messages == ["heard"]
