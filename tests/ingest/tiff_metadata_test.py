"""What TIFF files say about themselves is believed, or refused by name."""

import numpy as np
import pytest
import tifffile

from isl_jax.ingest import readers
from tests.data.conftest import write_ome_set

SMALL = np.arange(20 * 24, dtype=np.uint16).reshape(20, 24)
LARGE = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48)


def write_several(path, images, *, ome, **options):
    with tifffile.TiffWriter(path, ome=ome) as writer:
        for name, image in images:
            metadata = {"Name": name, "axes": "YX"} if ome else None
            writer.write(image, metadata=metadata, contiguous=False, **options)


@pytest.mark.parametrize("first", ["overview", "position"])
def test_several_images_in_one_ome_tiff_are_refused_by_their_names(tmp_path, first):
    images = [(first, SMALL if first == "overview" else LARGE), ("B", LARGE), ("C", LARGE)]
    write_several(tmp_path / "x.ome.tif", images, ome=True)
    with pytest.raises(ValueError, match=rf"x.ome.tif: holds 3 images \({first}, B, C\), expected"):
        readers.inspect(tmp_path / "x.ome.tif")


@pytest.mark.parametrize("order", [1, -1])
def test_pages_of_several_sizes_are_several_images(tmp_path, order):
    write_several(tmp_path / "x.tif", [("", SMALL[1:]), ("", LARGE)][::order], ome=False)
    with pytest.raises(ValueError, match=r"x.tif: holds 2 images .*19×24 pixels"):
        readers.inspect(tmp_path / "x.tif")


def test_levels_of_a_pyramid_and_thumbnails_do_not_count(tmp_path):
    with tifffile.TiffWriter(tmp_path / "x.ome.tif", ome=True) as writer:
        writer.write(LARGE, subifds=1, metadata={"axes": "YX"})
        writer.write(LARGE[::2, ::2], subfiletype=1)
    with tifffile.TiffWriter(tmp_path / "thumb.tif") as writer:
        writer.write(SMALL, subfiletype=1, metadata=None)
        writer.write(LARGE, metadata=None)
    for name in ("x.ome.tif", "thumb.tif"):
        np.testing.assert_array_equal(readers.read(tmp_path / name)[0], LARGE)


@pytest.mark.parametrize("kind", ["imagej", "ome", "shaped"])
def test_time_points_are_no_channels_and_no_focal_planes(tmp_path, kind):
    path, options = tmp_path / "x.tif", {"metadata": {"axes": "TYX"}, "photometric": "minisblack"}
    options |= {"imagej": kind == "imagej", "ome": kind == "ome"}
    tifffile.imwrite(path, np.stack([LARGE] * 3), **options)
    with pytest.raises(ValueError, match=r"x.tif: has 3 time points, expected one; save each"):
        readers.inspect(path)
    tifffile.imwrite(path, np.stack([LARGE] * 3), **(options | {"metadata": {"axes": "ZYX"}}))
    assert readers.inspect(path).planes == 3


@pytest.mark.parametrize(
    ("metadata", "spacing"),
    [
        ({"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}, (0.5, 0.25)),
        ({"PhysicalSizeX": 2500, "PhysicalSizeXUnit": "Å"}, (0.25, 0.25)),
        ({"PhysicalSizeX": 5e-7, "PhysicalSizeXUnit": "m"}, (0.5, 0.5)),
        ({"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "pixel"}, None),
        ({}, None),
    ],
)
def test_the_pixel_size_of_ome_tiff(tmp_path, metadata, spacing):
    path = tmp_path / "x.ome.tif"
    tifffile.imwrite(path, SMALL, metadata={"axes": "YX", **metadata})
    info = readers.inspect(path)
    assert info.spacing == (spacing and pytest.approx(spacing))
    assert info.is_square == (spacing != (0.5, 0.25))
    if spacing:
        assert info.pixel_size == pytest.approx((spacing[0] * spacing[1]) ** 0.5)


@pytest.mark.parametrize("told", ["0,5", "NaN", "0", "-1", "INF", ""])
def test_a_pixel_size_that_is_none_is_unknown_and_stops_nothing(tmp_path, told):
    path = tmp_path / "x.ome.tif"
    tifffile.imwrite(path, SMALL, metadata={"axes": "YX", "PhysicalSizeX": 0.12345})
    path.write_bytes(path.read_bytes().replace(b'"0.12345"', f'"{told}"'.ljust(9).encode()))
    assert readers.inspect(path).spacing is None
    np.testing.assert_array_equal(readers.read(path)[0], SMALL)


@pytest.mark.parametrize(
    ("resolution", "spacing"), [((4, 2), (0.5, 0.25)), ((0, 2), None), ((2, 2), (0.5, 0.5))]
)
def test_the_pixel_size_of_imagej(tmp_path, resolution, spacing):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, SMALL, imagej=True, resolution=resolution, metadata={"unit": "micron"})
    assert readers.inspect(path).spacing == (spacing and pytest.approx(spacing))


def write_companion(folder):
    """Two files, a channel each, whose metadata are in a third."""
    described = []
    for k in range(2):
        described.append(
            f'<TiffData FirstC="{k}" IFD="0" PlaneCount="1"><UUID FileName="s_C{k}.ome.tif">'
            f"urn:uuid:{k}</UUID></TiffData>"
        )
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/'
            f'Schemas/OME/2016-06" UUID="urn:uuid:{k}"><BinaryOnly '
            'MetadataFile="s.companion.ome" UUID="urn:uuid:9"/></OME>'
        )
        with tifffile.TiffWriter(folder / f"s_C{k}.ome.tif", ome=False) as writer:
            writer.write(SMALL + 1000 * k, description=xml.encode(), metadata=None)
    channels = '<Channel ID="C:0" Name="dapi"/><Channel ID="C:1" Name="phase"/>'
    (folder / "s.companion.ome").write_text(
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:9"><Image>'
        '<Pixels DimensionOrder="XYZCT" Type="uint16" SizeX="24" SizeY="20" SizeZ="1" SizeC="2" '
        f'SizeT="1" PhysicalSizeX="0.5">{channels}{"".join(described)}</Pixels></Image></OME>'
    )


def test_metadata_in_a_companion_file_are_followed(tmp_path):
    write_companion(tmp_path)
    for k in range(2):
        path = tmp_path / f"s_C{k}.ome.tif"
        info = readers.inspect(path)
        assert (info.channels, info.pixel_size) == (("dapi", "phase"), 0.5)
        assert info.siblings == (tmp_path / f"s_C{1 - k}.ome.tif",)
        np.testing.assert_array_equal(readers.read(path, channel=1)[0], SMALL + 1000)
        np.testing.assert_array_equal(readers.read(path, alone=True)[0], SMALL + 1000 * k)
    (tmp_path / "s.companion.ome").unlink()
    with pytest.raises(ValueError, match=r"s_C0.ome.tif: its metadata are in s.companion.ome"):
        readers.inspect(tmp_path / "s_C0.ome.tif")


@pytest.mark.parametrize("name", ["../x_C1.ome.tif", "/etc/passwd", "..\\x.tif"])
def test_metadata_name_no_files_of_other_folders(tmp_path, name):
    (tmp_path / "in").mkdir()
    first, second = write_ome_set(tmp_path / "in", np.stack([SMALL, LARGE[:20, :24]])[:, None],
                                  ["BF", "DAPI"])  # fmt: skip
    second.rename(tmp_path / "x_C1.ome.tif")
    data = first.read_bytes()
    spot = b'FileName="x_C1.ome.tif"'
    first.write_bytes(
        data.replace(spot, f'FileName="{name}"'.encode()[: len(spot)].ljust(len(spot)))
    )
    with pytest.raises(ValueError, match=r"x_C0.ome.tif: "):
        readers.inspect(first)


def test_of_images_described_in_one_file_the_own_ones_names_and_scale_count(tmp_path):
    for k in range(2):
        images = "".join(
            f'<Image ID="Image:{i}"><Pixels ID="P:{i}" DimensionOrder="XYZCT" Type="uint16" '
            f'SizeX="24" SizeY="20" SizeZ="1" SizeC="1" SizeT="1" PhysicalSizeX="{i + 1}">'
            f'<Channel ID="C:{i}" Name="channel {i}"/><TiffData IFD="0" PlaneCount="1"><UUID '
            f'FileName="p{i}.ome.tif">urn:uuid:{i}</UUID></TiffData></Pixels></Image>'
            for i in range(2)
        )
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/'
            f'Schemas/OME/2016-06" UUID="urn:uuid:{k}">{images}</OME>'
        )
        with tifffile.TiffWriter(tmp_path / f"p{k}.ome.tif", ome=False) as writer:
            writer.write(SMALL + k, description=xml.encode(), metadata=None)
    info = readers.inspect(tmp_path / "p1.ome.tif")
    assert (info.channels, info.spacing) == (("channel 1",), (2, 2))


def test_channels_are_found_in_other_capitals_and_never_by_an_unclear_name(tmp_path):
    path = tmp_path / "x.ome.tif"
    metadata = {"axes": "CYX", "Channel": {"Name": ["DIC", "Phase", "phase"]}}
    tifffile.imwrite(path, np.stack([SMALL] * 3), metadata=metadata)
    info = readers.inspect(path)
    assert info.is_named and not readers.ImageInfo(("0", "1"), 1, 2, 2, np.dtype("u1")).is_named
    assert [info.channel_index(name) for name in ("dic", "phase", "Phase", "0")] == [0, 2, 1, 0]
    with pytest.raises(ValueError, match="occurs twice"):
        info.channel_index("PHASE")


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int16, np.float32])
def test_what_is_white_where_it_is_low_is_read_as_it_looks(tmp_path, dtype):
    image = (SMALL % 2).astype(dtype) if dtype is bool else (SMALL % 200).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", image, photometric="miniswhite")
    read = readers.read(tmp_path / "x.tif")[0].astype(float)
    np.testing.assert_allclose(read - read.min(), image.max() - image.astype(float))
    assert readers.open_image(tmp_path / "x.tif").mapped(0, 0) is None


def test_a_palette_of_greys_is_applied_to_images_and_not_to_labels(tmp_path):
    numbers = (SMALL % 200).astype(np.uint8)
    falling = np.stack([np.arange(255, -1, -1, dtype=np.uint16) * 257] * 3)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, numbers, photometric="palette", colormap=falling)
    np.testing.assert_array_equal(readers.read(path)[0], 255 - numbers)
    np.testing.assert_array_equal(readers.open_image(path, index=True).read()[0], numbers)
    falling[1] = 0  # colours, as ImageJ shows what a detector counted
    tifffile.imwrite(path, numbers, photometric="palette", colormap=falling)
    np.testing.assert_array_equal(readers.read(path)[0], numbers)


@pytest.mark.parametrize("planar", [False, True])
def test_equal_colours_are_grey_and_alpha_is_ignored(tmp_path, planar):
    image = (SMALL % 250).astype(np.uint8)
    path = tmp_path / "x.tif"
    pixels = np.stack([image] * 3, 0 if planar else -1)
    tifffile.imwrite(path, pixels, photometric="rgb",
                     planarconfig="separate" if planar else "contig")  # fmt: skip
    assert readers.inspect(path).channels == ("0",)
    np.testing.assert_array_equal(readers.read(path), image[None])
    tifffile.imwrite(tmp_path / "a.tif", np.stack([image, 255 - image], -1),
                     photometric="minisblack", planarconfig="contig",
                     extrasamples=["unassalpha"])  # fmt: skip
    np.testing.assert_array_equal(readers.read(tmp_path / "a.tif"), image[None])
