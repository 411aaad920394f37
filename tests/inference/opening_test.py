"""Which planes of a file the model gets: by names, by colours, by order, or an error."""

import imagecodecs
import numpy as np
import pytest
import tifffile

from isl_jax.inference.large import Scratch
from isl_jax.inference.opening import roles_of
from isl_jax.inference.sources import find_sources
from isl_jax.ingest.layouts import parse_roles


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 255, (3, 20, 30), np.uint8)


def write(path, pixels, names=(), **metadata):
    metadata |= {"axes": "CYX"} | ({"Channel": {"Name": list(names)}} if names else {})
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata=metadata)
    return path


def opened(path, channels, **options):
    roles = parse_roles(channels) if isinstance(channels, str) else roles_of(channels)
    return find_sources([str(path)], roles).images[0].open(Scratch(), **options)


@pytest.mark.parametrize(
    ("names", "channels", "expected"),
    [
        (["phase", "dic", "x"], ["phase", "dic"], [0, 1]),
        (["DIC", "Phase", "x"], ["phase", "dic"], [1, 0]),
        (["DAPI", "DIC", "Phase"], ["phase", "phase", "phase"], [2]),
        (["phase", "phase", "Phase"], ["phase", "phase", "phase"], [0, 1, 2]),
        (["DAPI", "DIC", "Phase"], "Phase,DIC", [2, 1]),
        (["DAPI", "DIC", "Phase"], "2,0", [2, 0]),
        ([], ["a", "b", "c"], [0, 1, 2]),
    ],
)
def test_names_decide_where_there_are_names(tmp_path, pixels, names, channels, expected):
    image = opened(write(tmp_path / "x.ome.tif", pixels, names), channels)
    np.testing.assert_array_equal(np.asarray(image.planes), pixels[expected])


@pytest.mark.parametrize("num", [2, 3])
def test_names_that_disagree_are_never_taken_in_order(tmp_path, pixels, num):
    file = write(tmp_path / "x.ome.tif", pixels[:num], ["DAPI", "Gfp", "Cy5"][:num])
    with pytest.raises(ValueError, match=r"x\.ome\.tif: .*DAPI, Gfp.*phase.*--channels=DAPI"):
        opened(file, ["phase", "dic", "bf"][:num])


def test_the_only_channel_needs_no_name(tmp_path, pixels):
    image = opened(write(tmp_path / "x.ome.tif", pixels[:1], ["Camera 1"]), ["phase"])
    np.testing.assert_array_equal(np.asarray(image.planes), pixels[:1])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_model_of_colours_opens_colours(tmp_path, pixels, suffix):
    file, image = tmp_path / f"x.{suffix}", np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
    if suffix == "png":
        file.write_bytes(imagecodecs.png_encode(image))
    else:
        tifffile.imwrite(file, image, photometric="rgb")
    for channels, expected in (
        (["R", "G", "B"], [0, 1, 2]), (["G"], [1]), ("R", [0]), ("B,R", [2, 0]),
        (["x:R", "x:G", "x:B"], [0, 1, 2]),
    ):  # fmt: skip
        planes = np.asarray(opened(file, channels).planes)
        np.testing.assert_array_equal(planes, pixels[expected])
    with pytest.raises(ValueError, match=rf"x\.{suffix}: .*--channels=R, G or B") as raised:
        opened(file, ["phase"])
    assert "--inputs" not in str(raised.value)


def test_grey_saved_in_colours_is_grey(tmp_path, pixels):
    grey = np.repeat(pixels[0][..., None], 3, axis=-1)
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(grey))
    for channels in (["phase"], ["phase", "phase", "phase"], "R"):
        planes = np.asarray(opened(tmp_path / "x.png", channels).planes)
        np.testing.assert_array_equal(planes, pixels[:1])


@pytest.mark.parametrize("binning", [1, 2])
def test_spacing_is_that_of_the_pixels_that_are_predicted(tmp_path, pixels, binning):
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    file = write(tmp_path / "x.ome.tif", pixels[:1], **sizes)
    image = opened(file, ["phase"], binning=binning)
    assert image.binning == binning and image.spacing == (0.5 * binning, 0.25 * binning)


def test_files_of_one_image_are_one_source(tmp_path, pixels):
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        uuid = [f"urn:uuid:0000000{k}-0000-0000-0000-000000000000" for k in range(2)]
        planes = "".join(
            f'<TiffData FirstC="{k}" IFD="0" PlaneCount="1"><UUID FileName="x_C{k}.ome.tif">'
            f"{uuid[k]}</UUID></TiffData>"
            for k in range(2)
        )
        for k in range(2):
            xml = (
                '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
                f'UUID="{uuid[k]}"><Image ID="Image:0"><Pixels ID="Pixels:0" Type="uint8" '
                'DimensionOrder="XYCZT" SizeX="30" SizeY="20" SizeC="2" SizeZ="1" SizeT="1">'
                f'<Channel ID="Channel:0:0"/><Channel ID="Channel:0:1"/>{planes}</Pixels></Image>'
                "</OME>"
            )
            tifffile.imwrite(folder / f"x_C{k}.ome.tif", pixels[k], description=xml, metadata=None)
    sources = find_sources([str(tmp_path)], parse_roles("p,q")).images
    assert [source.name for source in sources] == ["a_x_C0", "b_x_C0"]
    image = sources[0].open(Scratch())
    np.testing.assert_array_equal(np.asarray(image.planes), pixels[:2])
    assert image.paths == sources[0].paths and len(image.paths) == 2
