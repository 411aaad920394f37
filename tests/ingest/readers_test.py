import json
import os
import pickle
import struct

import numpy as np
import pytest
import tifffile
from imagecodecs import png_encode

from isl_jax.ingest import readers
from isl_jax.ingest.listing import list_images
from isl_jax.ingest.ome_zarr import list_zarr_labels
from tests.data.conftest import write_ome_set

DTYPES = [np.uint8, np.uint16, np.uint32, np.int16, np.int32, np.float32, np.float64]


def numbers(shape, dtype=np.uint16, seed=0):
    return (np.random.default_rng(seed).random(shape) * 250).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_stacks_of_every_depth_come_back_in_their_own_dtype(tmp_path, dtype, byteorder):
    stack = numbers((5, 13, 17), dtype)
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, byteorder=byteorder, photometric="minisblack")
    info = readers.inspect(path)
    assert (info.planes, info.height, info.width, info.dtype) == (5, 13, 17, np.dtype(dtype))
    whole = readers.read(path)
    assert whole.dtype == np.dtype(dtype) and whole.dtype.isnative
    np.testing.assert_array_equal(whole, stack)
    np.testing.assert_array_equal(readers.read(path, planes=[3, 0]), stack[[3, 0]])


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "deflate", "jpeg2000", "packbits"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_compressed_and_tiled_files(tmp_path, compression, tile):
    image = numbers((40, 35))
    tifffile.imwrite(tmp_path / "c.tif", image, compression=compression, tile=tile)
    np.testing.assert_array_equal(readers.read(tmp_path / "c.tif")[0], image)


def test_packed_12_bit_files(tmp_path):
    image = np.random.default_rng(0).integers(0, 4096, (6, 8)).astype(np.uint16)
    bits = ((image[..., None] >> np.arange(11, -1, -1)) & 1).astype(np.uint8)
    data = np.packbits(bits.ravel()).tobytes()
    tags = [(256, 8), (257, 6), (258, 12), (259, 1), (262, 1), (273, 200), (277, 1), (278, 6)]
    tags.append((279, len(data)))
    directory = struct.pack("<H", len(tags))
    directory += b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    header = b"II*\0" + struct.pack("<I", 8) + directory + bytes(4)
    (tmp_path / "packed.tif").write_bytes(header.ljust(200, b"\0") + data)
    np.testing.assert_array_equal(readers.read(tmp_path / "packed.tif")[0], image)


def test_ome_tiff_gives_channel_names_planes_and_pixel_size(tmp_path):
    image = numbers((2, 4, 11, 12))  # C Z Y X
    path = tmp_path / "x.ome.tif"
    tifffile.imwrite(
        path,
        image,
        metadata={
            "axes": "CZYX",
            "Channel": {"Name": ["BF", "DAPI"]},
            "PhysicalSizeX": 325.0,
            "PhysicalSizeXUnit": "nm",
        },
    )
    info = readers.inspect(path)
    assert info.channels == ("BF", "DAPI") and info.planes == 4
    assert info.pixel_size == pytest.approx(0.325)
    assert [info.channel_index(name) for name in ("DAPI", "0", "2", "Cy5")] == [1, 0, None, None]
    np.testing.assert_array_equal(readers.read(path, channel=1, planes=[2]), image[1, 2:3])


@pytest.mark.parametrize("by", ["C", "Z"])
def test_an_ome_tiff_spread_over_files_is_one_image_whichever_is_opened(tmp_path, by):
    image = numbers((2, 3, 11, 12))
    files = write_ome_set(tmp_path, image, ["BF", "DAPI"], by=by)
    for path in files:
        info = readers.inspect(path)
        assert (info.channels, info.planes, info.pixel_size) == (("BF", "DAPI"), 3, 0.5)
        assert {path, *info.siblings} == set(files)
        np.testing.assert_array_equal(
            readers.read(path, channel=1, planes=[2, 0]), image[1, [2, 0]]
        )
        np.testing.assert_array_equal(readers.read(path), image[0])


def test_one_file_of_an_ome_set_alone(tmp_path):
    image = numbers((2, 3, 11, 12))
    for number, path in enumerate(write_ome_set(tmp_path, image, ["BF", "DAPI"])):
        info = readers.inspect(path, alone=True)
        assert (info.channels, info.planes, info.siblings) == (("0",), 3, ())
        np.testing.assert_array_equal(readers.read(path, alone=True), image[number])


def test_a_missing_or_truncated_file_of_an_ome_set_is_named(tmp_path):
    first, second = write_ome_set(tmp_path, numbers((2, 3, 11, 12)), ["BF", "DAPI"])
    os.truncate(second, second.stat().st_size - 100)
    with pytest.raises(ValueError, match=r"x_C1.ome.tif: (is truncated|cannot be read)"):
        readers.inspect(first)
    second.unlink()
    with pytest.raises(ValueError, match=r"x_C0.ome.tif: .* x_C1.ome.tif is not beside it"):
        readers.inspect(first)


def test_files_that_describe_each_others_images_give_their_own(tmp_path):
    """One file a position, as Micro-Manager writes them, with all positions in the metadata."""
    images = numbers((2, 3, 9, 10))
    described = "".join(
        f'<Image ID="Image:{k}"><Pixels ID="Pixels:{k}" DimensionOrder="XYZCT" Type="uint16" '
        'SizeX="10" SizeY="9" SizeZ="3" SizeC="1" SizeT="1"><TiffData IFD="0" PlaneCount="3">'
        f'<UUID FileName="pos{k}.ome.tif">urn:uuid:{k}</UUID></TiffData></Pixels></Image>'
        for k in range(2)
    )
    for k in range(2):
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/'
            f'Schemas/OME/2016-06" UUID="urn:uuid:{k}">{described}</OME>'
        )
        with tifffile.TiffWriter(tmp_path / f"pos{k}.ome.tif", ome=False) as writer:
            writer.write(images[k], description=xml.encode(), metadata=None,
                         photometric="minisblack")  # fmt: skip
    for k in range(2):
        path = tmp_path / f"pos{k}.ome.tif"
        assert readers.inspect(path).siblings == ()
        np.testing.assert_array_equal(readers.read(path), images[k])


@pytest.mark.parametrize("axes", ["ZCYX", "CZYX"])
def test_planes_and_channels_in_any_file_order(tmp_path, axes):
    image = numbers((3, 2, 9, 10))
    path = tmp_path / "x.ome.tif"
    tifffile.imwrite(path, image, metadata={"axes": axes})
    channels_first = image if axes[0] == "C" else image.swapaxes(0, 1)
    for channel, stack in enumerate(channels_first):
        np.testing.assert_array_equal(readers.read(path, channel=channel), stack)


def test_imagej_hyperstack(tmp_path):
    image = numbers((4, 3, 9, 10))  # Z C Y X
    path = tmp_path / "hyper.tif"
    tifffile.imwrite(
        path, image, imagej=True, resolution=(5.0, 5.0), metadata={"axes": "ZCYX", "unit": "um"}
    )
    info = readers.inspect(path)
    assert (info.channels, info.planes) == (("0", "1", "2"), 4)
    assert info.pixel_size == pytest.approx(0.2)
    np.testing.assert_array_equal(readers.read(path, channel=2, planes=[1, 3]), image[[1, 3], 2])


def test_planes_that_share_one_page(tmp_path):
    image = numbers((4, 16, 16))
    path = tmp_path / "volume.tif"
    tifffile.imwrite(path, image, volumetric=True, tile=(4, 16, 16), photometric="minisblack")
    np.testing.assert_array_equal(readers.read(path, planes=[2]), image[2:3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png(tmp_path, dtype):
    image = numbers((7, 9), dtype)
    (tmp_path / "x.png").write_bytes(png_encode(image))
    info = readers.inspect(tmp_path / "x.png")
    assert (info.height, info.width, info.dtype) == (7, 9, np.dtype(dtype))
    np.testing.assert_array_equal(readers.read(tmp_path / "x.png"), image[None])


@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("kind", ["png", "tif", "planar tif", "stack tif"])
def test_colours_are_channels_where_they_are_asked_for(tmp_path, kind, samples):
    image = numbers((2, 7, 9, samples), np.uint8)
    path = tmp_path / f"x.{kind.split()[-1]}"
    if kind == "png":
        path.write_bytes(png_encode(image[0]))
    elif kind == "planar tif":
        tifffile.imwrite(path, np.moveaxis(image[0], -1, 0), photometric="rgb",
                         planarconfig="separate")  # fmt: skip
    else:
        tifffile.imwrite(path, image if kind == "stack tif" else image[0], photometric="rgb")
    planes = 2 if kind == "stack tif" else 1
    info = readers.inspect(path, colour=True)
    assert (info.channels, info.planes, info.height, info.width) == (("R", "G", "B"), planes, 7, 9)
    assert info.channel_index("G") == 1 and info.channel_index("0") is None
    for channel in range(3):
        read = readers.read(path, channel=channel, colour=True)
        np.testing.assert_array_equal(read, image[:planes, ..., channel])
    for refuse in (readers.inspect, readers.read):
        with pytest.raises(ValueError, match="colour image, expected grey"):
            refuse(path)


def test_plain_numpy_arrays(tmp_path):
    image = numbers((3, 7, 9), np.float32)
    np.save(tmp_path / "x.npy", image)
    assert readers.inspect(tmp_path / "x.npy").planes == 3
    np.testing.assert_array_equal(readers.read(tmp_path / "x.npy", planes=[1]), image[1:2])


def test_masks_of_a_cellpose_seg_file(tmp_path):
    masks = numbers((8, 9))
    content = {"masks": masks, "est_diam": np.float64(3), "filename": "x.tif", "flows": [masks]}
    np.save(tmp_path / "x_seg.npy", content, allow_pickle=True)
    np.testing.assert_array_equal(readers.read(tmp_path / "x_seg.npy"), masks[None])


class _Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(3, 6))
def test_a_pickled_file_runs_nothing(tmp_path, protocol):
    path, trace = tmp_path / "x_seg.npy", tmp_path / "executed"
    np.save(path, {"masks": np.zeros(3)}, allow_pickle=True)
    content = pickle.dumps({"masks": np.ones((2, 2), int), "x": _Attack(trace)}, protocol)
    header_end = path.read_bytes().index(b"\n") + 1
    path.write_bytes(path.read_bytes()[:header_end] + content)
    with pytest.raises(ValueError, match=r"x_seg.npy: is not read, it refers to \w+.mkdir"):
        readers.read(path)
    assert not trace.exists()


def write_zarr(path, image, axes, *, version, labels=None, names=None):
    """A minimal OME-Zarr image of one level, uncompressed, one chunk (0.4: Zarr 2; 0.5: Zarr 3)."""
    path.mkdir(parents=True)
    scale = [0.5 if axis in "yx" else 1.0 for axis in axes]
    described = [
        {"name": axis, "type": "space", "unit": "micrometer"} if axis in "zyx" else {"name": axis}
        for axis in axes
    ]
    ome: dict = {
        "multiscales": [
            {
                "axes": described,
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [{"type": "scale", "scale": scale}],
                    }
                ],
            }
        ]
    }
    if names:
        ome["omero"] = {"channels": [{"label": name} for name in names]}
    write_group(path, ome, version)
    level = path / "0"
    if version == "0.4":
        level.mkdir()
        record = {
            "zarr_format": 2, "shape": image.shape, "chunks": image.shape, "fill_value": 0,
            "dtype": image.dtype.str, "compressor": None, "filters": None, "order": "C",
        }  # fmt: skip
        (level / ".zarray").write_text(json.dumps(record))
        (level / ".".join("0" * image.ndim)).write_bytes(image.tobytes())
    else:
        grid = {"name": "regular", "configuration": {"chunk_shape": image.shape}}
        record = {
            "zarr_format": 3, "node_type": "array", "shape": image.shape, "fill_value": 0,
            "data_type": image.dtype.name, "chunk_grid": grid,
            "chunk_key_encoding": {"name": "default"},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        }  # fmt: skip
        chunk = level.joinpath("c", *"0" * image.ndim)
        chunk.parent.mkdir(parents=True)
        (level / "zarr.json").write_text(json.dumps(record))
        chunk.write_bytes(image.tobytes())
    if labels is not None:
        write_group(path / "labels", {"labels": ["cells"]}, version)
        write_zarr(path / "labels" / "cells", labels, "yx", version=version)


def write_group(path, ome, version):
    path.mkdir(parents=True, exist_ok=True)
    if version == "0.4":
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(ome))
    else:
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        (path / "zarr.json").write_text(json.dumps(group))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_image_with_labels(tmp_path, version):
    image, labels = numbers((1, 2, 3, 8, 9)), numbers((8, 9), np.int32)
    path = tmp_path / "a.ome.zarr"
    write_zarr(path, image, "tczyx", version=version, labels=labels, names=["BF", "DAPI"])
    info = readers.inspect(path)
    assert (info.channels, info.planes, info.height, info.width) == (("BF", "DAPI"), 3, 8, 9)
    assert info.dtype == np.uint16 and info.pixel_size == 0.5
    np.testing.assert_array_equal(readers.read(path, channel=1, planes=[2, 0]), image[0, 1, [2, 0]])
    (name, label_path), = list_zarr_labels(path).items()  # fmt: skip
    assert name == "cells"
    np.testing.assert_array_equal(readers.read(label_path), labels[None])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_every_image_of_a_zarr_plate_is_listed(tmp_path, version):
    plate = tmp_path / "p.zarr"
    write_group(plate, {"plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}]}}, version)
    for well in ("A/1", "B/2"):
        write_group(plate / well, {"well": {"images": [{"path": "0"}, {"path": "1"}]}}, version)
        for number in "01":
            write_zarr(plate / well / number, numbers((2, 5, 6)), "cyx", version=version)
    (tmp_path / ".hidden.tif").write_bytes(b"")
    tifffile.imwrite(tmp_path / "x.tif", numbers((2, 2)))
    listed = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert listed == [*(f"p.zarr/{well}/{k}" for well in ("A/1", "B/2") for k in "01"), "x.tif"]


def test_metadata_is_read_without_pixels(tmp_path):
    path = tmp_path / "large.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(shape=(3000, 3000), dtype=np.uint16, data=None)
    info = readers.inspect(path)  # a sparse file: 18 MB that were never written
    assert (info.height, info.width) == (3000, 3000)


def test_planes_that_lie_in_one_piece_are_read_where_they_are(tmp_path):
    image = numbers((3, 2, 12, 14))
    hyper, packed = tmp_path / "hyper.tif", tmp_path / "packed.tif"
    tifffile.imwrite(hyper, image, imagej=True, metadata={"axes": "ZCYX"})
    tifffile.imwrite(packed, image[:, 0], compression="zlib", photometric="minisblack")
    np.save(tmp_path / "x.npy", image[:, 1])
    write_zarr(tmp_path / "x.zarr", image, "zcyx", version="0.5")
    for path, channel in ((hyper, 1), (tmp_path / "x.npy", 0), (tmp_path / "x.zarr", 1)):
        plane = readers.open_image(path).mapped(channel, 2)
        assert tuple(plane.shape) == (12, 14)
        assert isinstance(plane, np.memmap) or not isinstance(plane, np.ndarray)
        np.testing.assert_array_equal(plane[3:9, 5:99], image[2, 1, 3:9, 5:])
    assert readers.open_image(packed).mapped(0, 2) is None


def test_a_pixel_size_in_nanometres(tmp_path):
    path = tmp_path / "x.tif"
    metadata = {"axes": "YX", "unit": "nm"}
    tifffile.imwrite(path, numbers((5, 6)), imagej=True, resolution=(0.01, 0.01), metadata=metadata)
    assert readers.inspect(path).pixel_size == pytest.approx(0.1)
