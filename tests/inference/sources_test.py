"""What a user may point at, and how the channels in it are found."""

import dataclasses
import json

import numpy as np
import pytest
import tifffile

from isl_jax.data.binning import bin_average
from isl_jax.inference.large import Scratch
from isl_jax.inference.opening import roles_of
from isl_jax.inference.sources import find_sources, told
from isl_jax.ingest.layouts import parse_roles
from isl_jax.ingest.presets import load_layout
from isl_jax.outputs.zarr import write_zarr

ROLES = parse_roles("bf[0],bf[2],phase:max")


@pytest.fixture
def stacks():
    rng = np.random.default_rng(0)
    bf, phase = rng.integers(0, 4000, (2, 3, 40, 50), dtype=np.uint16)
    return {"bf": bf, "phase": phase, "dapi": phase[:1]}


@pytest.fixture
def expected(stacks):
    return np.stack([stacks["bf"][0], stacks["bf"][2], stacks["phase"].max(0)])


def write_fields(folder, stacks, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        for channel, stack in stacks.items():
            tifffile.imwrite(folder / f"{name}_{channel}.tif", stack, photometric="minisblack")


def planes(source, **options):
    return np.asarray(source.open(Scratch(), **options).planes)


def test_channel_names_say_where_the_planes_are():
    assert roles_of(["ch5[1]", "ch5[2]", "ch1:max"]) == parse_roles("ch5[1],ch5[2],ch1:max")
    assert roles_of(["he:R", "he:G", "he:B", "phase"]) == parse_roles("he:rgb,phase")


def test_files_named_after_the_channels_are_put_together(tmp_path, stacks, expected):
    write_fields(tmp_path / "raw", stacks, "w1 f1", "w1 f2")
    for text in (tmp_path / "raw", tmp_path / "raw" / "*.tif"):
        sources, unused = find_sources([str(text)], ROLES)
        assert [source.name for source in sources] == ["w1 f1", "w1 f2"]
        assert len(unused) == 2
        np.testing.assert_array_equal(planes(sources[1]), expected)
    only, _ = find_sources([str(tmp_path / "raw")], ROLES, exclude="f2")
    assert [source.name for source in only] == ["w1 f1"]


def test_a_layout_says_which_file_is_what(tmp_path, stacks, expected):
    write_fields(tmp_path / "raw", stacks, "a")
    for path in (tmp_path / "raw").iterdir():
        path.rename(path.with_name(path.name.replace("_", "-")))
    layout = dataclasses.replace(load_layout("folder"), pattern="{field}-{channel}{suffix}")
    (source,), unused = find_sources([str(tmp_path / "raw")], ROLES, layout=layout)
    assert (source.name, len(unused)) == ("a", 1)
    np.testing.assert_array_equal(planes(source), expected)


def test_channels_inside_a_file_go_by_name_or_in_order(tmp_path, stacks):
    image = np.stack([stacks["dapi"][0], stacks["bf"][0], stacks["phase"][0]])
    names = ["DAPI", "bf", "pc"]
    metadata = {"axes": "CYX", "Channel": {"Name": names}}
    tifffile.imwrite(tmp_path / "x.ome.tif", image, metadata=metadata, photometric="minisblack")
    (source,), _ = find_sources([str(tmp_path / "x.ome.tif")], parse_roles("bf,pc"))
    assert source.name == "x"
    np.testing.assert_array_equal(planes(source), image[1:])
    tifffile.imwrite(tmp_path / "y.tif", image, photometric="minisblack")
    (source,), _ = find_sources([str(tmp_path / "y.tif")], parse_roles("a,b,c"))
    np.testing.assert_array_equal(planes(source), image)
    (wrong,), _ = find_sources([str(tmp_path / "y.tif")], parse_roles("a,b"))
    with pytest.raises(ValueError, match=r"y\.tif: holds 3 planes.*takes 2 \(a, b\).*--channels"):
        planes(wrong)


def test_planes_are_counted_and_not_the_words_that_choose_them(tmp_path, stacks):
    """`dic[0,2]` is two planes: of a file that holds two, or of the only stack in a file."""
    two = np.concatenate([stacks["dapi"], stacks["bf"][:1]])
    tifffile.imwrite(tmp_path / "two.tif", two, photometric="minisblack")
    tifffile.imwrite(tmp_path / "three.tif", stacks["bf"], photometric="minisblack")
    for text in ("dic[0,2]", "dic[0],dic[2]"):
        (source,), _ = find_sources([str(tmp_path / "two.tif")], parse_roles(text))
        np.testing.assert_array_equal(planes(source), two)
        (source,), _ = find_sources([str(tmp_path / "three.tif")], parse_roles(text))
        np.testing.assert_array_equal(planes(source), stacks["bf"][[0, 2]])
    (source,), _ = find_sources([str(tmp_path / "three.tif")], parse_roles("dic[::2]"))
    np.testing.assert_array_equal(planes(source), stacks["bf"][[0, 2]])
    (beyond,), _ = find_sources([str(tmp_path / "two.tif")], parse_roles("dic[0,2,4]"))
    with pytest.raises(ValueError, match=r"two\.tif.*has 2 planes, but dic\[0,2,4\] was asked"):
        planes(beyond)
    (mixed,), _ = find_sources([str(tmp_path / "two.tif")], parse_roles("dic[0,2],bf"))
    with pytest.raises(ValueError, match=r"holds 2 planes.* takes 3 \(dic\[0,2\], bf\)"):
        planes(mixed)


def test_a_file_is_parsed_once(tmp_path, stacks, monkeypatch):
    opened, opening = [], tifffile.TiffFile.__init__

    def counted(self, file, *arguments, **options):
        opened.append(file)
        opening(self, file, *arguments, **options)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", counted)
    write_fields(tmp_path / "raw", stacks, "a")
    tifffile.imwrite(tmp_path / "x.tif", stacks["bf"], photometric="minisblack")
    for text, roles, num_files in (("raw", ROLES, 2), ("x.tif", parse_roles("u,v,w"), 1)):
        (source,), _ = find_sources([str(tmp_path / text)], roles)
        opened.clear()
        planes(source)
        assert len(opened) == num_files


def test_one_plane_serves_a_repeated_channel(tmp_path, stacks):
    tifffile.imwrite(tmp_path / "x.tif", stacks["bf"][0])
    (source,), _ = find_sources([str(tmp_path / "x.tif")], parse_roles("phase,phase,phase"))
    np.testing.assert_array_equal(planes(source), stacks["bf"][:1])


def test_zarr_images_and_plates(tmp_path, stacks):
    image = np.concatenate([stacks["bf"][:2], stacks["phase"][:1]])
    labels = np.zeros((40, 50), np.int32)
    plate = tmp_path / "plate.zarr"
    plate.mkdir()
    (plate / ".zgroup").write_text('{"zarr_format": 2}')
    (plate / ".zattrs").write_text('{"plate": {"wells": [{"path": "A/1"}]}}')
    (plate / "A" / "1").mkdir(parents=True)
    (plate / "A" / "1" / ".zgroup").write_text('{"zarr_format": 2}')
    (plate / "A" / "1" / ".zattrs").write_text('{"well": {"images": [{"path": "0"}]}}')
    write_zarr(plate / "A" / "1" / "0", labels, image, ("a", "b", "c"), name="cells")
    (source,), _ = find_sources([str(plate)], parse_roles("c,a"))
    assert source.name == "plate_A_1_0"
    np.testing.assert_array_equal(planes(source), image[[2, 0]])
    chunked = source.open(Scratch(max_pixels=10)).planes
    assert not isinstance(chunked, np.ndarray)
    np.testing.assert_array_equal(chunked[:, 7:90, 3:20], image[[2, 0], 7:90, 3:20])


def test_lists_folders_and_names_that_clash(tmp_path, stacks):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "x.tif", stacks["bf"], photometric="minisblack")
    (tmp_path / "all.txt").write_text("# both\na/x.tif\n\nb\n")
    sources, _ = find_sources([str(tmp_path / "all.txt")], parse_roles("u,v,w"))
    assert [source.name for source in sources] == ["a_x", "b_x"]
    with pytest.raises(FileNotFoundError, match="no such file"):
        find_sources([str(tmp_path / "no*.tif")], ROLES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no image"):
        find_sources([str(tmp_path / "empty")], ROLES)


def test_exclude_is_searched_in_the_name_as_told_before_a_file_is_opened(tmp_path, stacks):
    for day in ("d1", "d2"):
        (tmp_path / "raw" / day).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "raw" / day / "x.tif", stacks["bf"][0])
        (tmp_path / "raw" / day / "bad.ome.tif").write_bytes(b"no image")
    (tmp_path / "raw" / "d2" / "worse.ome.tif").write_bytes(b"no image")
    roles = parse_roles("bf")

    def names(exclude):
        return [
            s.name for s in find_sources([str(tmp_path / "raw")], roles, exclude=exclude).images
        ]

    assert names(None) == ["d1_bad", "d1_x", "d2_bad", "d2_worse", "d2_x"]
    assert names("^d2_|bad$") == ["d1_x"]
    for exclude, told_ in ((".", "leaves none of 5 images"), ("(", "not a regular expression")):
        with pytest.raises(ValueError, match=told_):
            names(exclude)


def test_fields_of_one_name_in_many_folders(tmp_path, stacks):
    for day in ("d1", "d2"):
        write_fields(tmp_path / day, stacks, "x")
        (tmp_path / day / "raw").mkdir()
        write_fields(tmp_path / day / "raw", stacks, "x")
    found = find_sources([str(tmp_path)], ROLES)
    assert [s.name for s in found.images] == ["d1_raw_x", "d1_x", "d2_raw_x", "d2_x"]
    twice = tmp_path / "d1" / "x_bf.png"
    twice.write_bytes(b"")
    with pytest.raises(ValueError, match=r"x_bf\.(png|tif) and .*x_bf\.(png|tif) are both 'bf'"):
        find_sources([str(tmp_path)], ROLES)


def test_images_of_a_plate_go_by_their_place(tmp_path):
    plate = tmp_path / "p.zarr"
    (plate / "A" / "1").mkdir(parents=True)
    wells = {"plate": {"wells": [{"path": "A/1"}]}}
    images = {"well": {"images": [{"path": "0"}, {"path": "1"}]}}
    for folder, attributes in ((plate, wells), (plate / "A" / "1", images)):
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        (folder / ".zattrs").write_text(json.dumps(attributes))
    found = find_sources([str(plate)], parse_roles("bf"), exclude="A_1_1")
    assert [source.name for source in found.images] == ["p_A_1_0"]


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".OME.TIFF"])
def test_names_of_channels_end_where_the_suffix_begins(tmp_path, stacks, suffix):
    (tmp_path / "raw").mkdir()
    for field in ("a", "b"):
        for channel in ("phase", "dapi", "masks"):
            tifffile.imwrite(tmp_path / "raw" / f"{field}_{channel}{suffix}", stacks["bf"][0])
    found = find_sources([str(tmp_path / "raw")], parse_roles("phase"))
    assert [source.name for source in found.images] == ["a", "b"]
    assert told(found.unused).startswith("; 4 other files are not used (a_dapi")
    assert told(found.unused[:1]) == f"; 1 other file is not used (a_dapi{suffix})"
    assert told([]) == ""


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("binning", [1, 2])
def test_large_images_stay_in_files(tmp_path, stacks, expected, compression, binning):
    folder = tmp_path / "raw"
    folder.mkdir()
    for channel in ("bf", "phase"):
        options = {"compression": compression, "photometric": "minisblack"}
        tifffile.imwrite(folder / f"x_{channel}.tif", stacks[channel], **options)
    (source,), _ = find_sources([str(folder)], ROLES)
    scratch = Scratch(tmp_path, max_pixels=10)
    image = source.open(scratch, binning=binning).planes
    assert not isinstance(image, np.ndarray)
    whole = np.stack([bin_average(p, binning) for p in expected]) if binning > 1 else expected
    assert image.shape == whole.shape
    np.testing.assert_array_equal(image[:, 3:17, 5:11], whole[:, 3:17, 5:11])
    np.testing.assert_array_equal(image[slice(1, 3), 0:9, :], whole[1:3, 0:9])
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
