import dataclasses
import json
import shutil

import numpy as np
import pytest
import tifffile
from imagecodecs import png_encode

from isl_jax.data import preparation
from isl_jax.data.binning import bin_average, bin_labels
from isl_jax.data.recipe import Recipe
from isl_jax.data.store import open_dataset
from isl_jax.ingest.checked import CheckedField, check_fields, recipe_of
from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.layouts import Layout, Role, layout_from_options
from isl_jax.ingest.presets import PRESETS
from isl_jax.ingest.projections import focus_projection
from tests.data.conftest import LAYOUT, prepare_raw, write_ome_set, write_raw


def prepared(source, layout, out, **options):
    """All fields of a folder, for training."""
    fields, _ = match_files(source, layout)
    split_of = {field.name: "train" for field in fields}
    checked, recipe = check_fields(fields, layout), recipe_of(layout, **options)
    return open_dataset(preparation.prepare(checked, split_of, out, recipe))


def contents(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def numbers(shape, seed=0, dtype=np.uint16):
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


def cells(shape):
    """Labels of one piece each."""
    y, x = np.indices(shape)
    return (y // 5 * 8 + x // 7 + 1).astype(np.uint16) * (y % 5 > 0)


def test_data_set_1_from_its_file_names(tmp_path):
    brightfield, phase, dapi = (
        numbers((4, 30, 32)),
        numbers((3, 30, 32), 1),
        numbers((4, 30, 32), 2),
    )
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, stack in (("ch5", brightfield), ("ch1", phase), ("ch4", dapi)):
        tifffile.imwrite(raw / f"r01c01f01_{name}.tiff", stack, photometric="minisblack")
    masks = cells((30, 32))
    (raw / "r01c01f01_cellpose.png").write_bytes(png_encode(masks))
    dataset = prepared(raw, PRESETS["dataset1"], tmp_path / "out")
    inputs = dataset.inputs("r01c01f01")
    np.testing.assert_array_equal(inputs[..., 0], brightfield[1])
    np.testing.assert_array_equal(inputs[..., 1], brightfield[2])
    np.testing.assert_array_equal(inputs[..., 2], phase.max(0))
    np.testing.assert_array_equal(dataset.stain_image("r01c01f01"), dapi.max(0))
    np.testing.assert_array_equal(dataset.labels("r01c01f01"), masks)
    assert dataset.study == "nucleus" and dataset.channels == ("ch5[1]", "ch5[2]", "ch1:max")


def test_data_set_2_from_its_file_names(tmp_path):
    dic, cellmask, masks = numbers((6, 30, 32)), numbers((9, 30, 32), 1), cells((30, 32))
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, stack in (("w5DIC-oil-40x", dic), ("w4Cy5", cellmask), ("w3Hoechst", dic)):
        tifffile.imwrite(raw / f"day1_{name}_s2.TIF", stack, photometric="minisblack")
    (raw / "day1_cell_instance_s2.png").write_bytes(png_encode(masks))
    dataset = prepared(raw, PRESETS["dataset2"], tmp_path / "out")
    np.testing.assert_array_equal(dataset.inputs("day1 s2"), np.moveaxis(dic[::2], 0, -1))
    np.testing.assert_array_equal(dataset.stain_image("day1 s2"), focus_projection(cellmask))
    np.testing.assert_array_equal(dataset.labels("day1 s2"), masks)
    assert dataset.study == "cell"


def test_cellpose_folder_with_tiff_png_and_seg_masks(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    images = {name: numbers((20, 21), k) for k, name in enumerate("abc")}
    for name, image in images.items():
        tifffile.imwrite(raw / f"{name}.tif", image)
    masks = cells((20, 21))
    tifffile.imwrite(raw / "a_masks.tif", masks)
    (raw / "b_cp_masks.png").write_bytes(png_encode(masks))
    np.save(raw / "c_seg.npy", {"masks": masks, "outlines": masks}, allow_pickle=True)
    dataset = prepared(raw, PRESETS["cellpose"], tmp_path / "out")
    for name, image in images.items():
        np.testing.assert_array_equal(dataset.inputs(name)[..., 0], image)
        np.testing.assert_array_equal(dataset.labels(name), masks)


def test_stardist_folder(tmp_path):
    for name, image in (("images", numbers((20, 21))), ("masks", cells((20, 21)))):
        (tmp_path / "train" / name).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "train" / name / "x.tif", image)
    dataset = prepared(tmp_path, PRESETS["stardist"], tmp_path / "out")
    np.testing.assert_array_equal(dataset.labels("train x"), cells((20, 21)))


def test_channels_inside_a_file_by_name_or_number(tmp_path):
    image = numbers((3, 4, 20, 21))
    names = {"axes": "CZYX", "Channel": {"Name": ["BF", "PC", "DAPI"]}}
    (tmp_path / "raw").mkdir()
    tifffile.imwrite(tmp_path / "raw" / "x.ome.tif", image, metadata=names)
    layout = layout_from_options(
        {"pattern": "{field}.ome.tif", "inputs": "BF[1,2],1:max", "stain": "DAPI:mean"}
    )
    dataset = prepared(tmp_path / "raw", layout, tmp_path / "out")
    inputs = dataset.inputs("x")
    np.testing.assert_array_equal(inputs[..., 0], image[0, 1])
    np.testing.assert_array_equal(inputs[..., 1], image[0, 2])
    np.testing.assert_array_equal(inputs[..., 2], image[1].max(0))
    np.testing.assert_array_equal(dataset.stain_image("x"), np.rint(image[2].mean(0)))


def test_an_ome_tiff_of_several_files_is_one_field(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    image = numbers((2, 3, 20, 21))
    files = write_ome_set(raw, image, ["BF", "DAPI"])
    tifffile.imwrite(raw / "x_masks.tif", cells((20, 21)))
    pattern = r"(?P<field>[^_]+)_(?:C\d\.ome|(?P<channel>masks))\.tif"
    layout = layout_from_options(
        {"pattern": pattern, "inputs": "BF", "stain": "DAPI:max", "labels": "masks"}
    )
    fields, unmatched = match_files(raw, layout)
    assert [field.name for field in fields] == ["x"] and not unmatched
    dataset = prepared(raw, layout, tmp_path / "out")
    np.testing.assert_array_equal(dataset.inputs("x"), np.moveaxis(image[0], 0, -1))
    np.testing.assert_array_equal(dataset.stain_image("x"), image[1].max(0))
    record = json.loads((tmp_path / "out" / "dataset.json").read_text())
    named = [source["file"] for source in record["fields"][0]["sources"]["BF"]]
    assert named == [path.name for path in files]
    # The same files by a pattern that finds the channel in each name: each is taken for itself.
    by_name = layout_from_options(
        {"pattern": r"(?P<field>[^_]+)_(?P<channel>C\d)\.ome\.tif", "inputs": "C1"}
    )
    named = prepared(raw, by_name, tmp_path / "named")
    np.testing.assert_array_equal(named.inputs("x"), np.moveaxis(image[1], 0, -1))


def test_colour_images_as_three_channels(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    image = numbers((20, 21, 3), dtype=np.uint8)
    (raw / "x_he.png").write_bytes(png_encode(image))
    tifffile.imwrite(raw / "x_phase.tif", numbers((20, 21)).astype(np.uint8))
    layout = layout_from_options(
        {"pattern": "{field}_{channel}{suffix}", "inputs": "he:rgb,phase,he[1]:rgb"}
    )
    dataset = prepared(raw, layout, tmp_path / "out")
    assert dataset.channels == ("he:R", "he:G", "he:B", "phase", "he:G")
    np.testing.assert_array_equal(dataset.inputs("x")[..., :3], image)
    np.testing.assert_array_equal(dataset.inputs("x")[..., 4], image[..., 1])
    # In a layout without channels in the file names, by the colours' own names.
    (raw / "x_phase.tif").unlink()
    inside = layout_from_options({"pattern": "{field}.png", "inputs": "B,R"})
    named = prepared(raw, inside, tmp_path / "named")
    np.testing.assert_array_equal(named.inputs("x_he"), image[..., [2, 0]])


def test_opera_index(tmp_path):
    raw = tmp_path / "plate" / "Images"
    raw.mkdir(parents=True)
    entries, stacks = [], {}
    for field in (1, 2):
        for channel, name in ((1, "Phase"), (4, "DAPI"), (5, "Brightfield")):
            stacks[field, channel] = numbers((4, 20, 21), 10 * field + channel)
            for plane in (4, 2, 3, 1):  # Harmony does not promise an order
                url = f"r02c03f{field:02d}p{plane:02d}-ch{channel}.tiff"
                tifffile.imwrite(raw / url, stacks[field, channel][plane - 1])
                entries.append(
                    f"<Image><URL>{url}</URL><Row>2</Row><Col>3</Col><FieldID>{field}</FieldID>"
                    f"<PlaneID>{plane}</PlaneID><ChannelID>{channel}</ChannelID>"
                    f"<ChannelName>{name}</ChannelName></Image>"
                )
    xml = f"<D xmlns='http://www.perkinelmer.com/PEHH'><Images>{''.join(entries)}</Images></D>"
    (raw / "Index.idx.xml").write_text(xml)
    masks = numbers((20, 21), 99)
    (raw / "r02c03f02_cellpose.png").write_bytes(png_encode(masks))
    dataset = prepared(tmp_path / "plate", PRESETS["opera"], tmp_path / "out")
    assert [(f.name, f.group, f.has_labels) for f in dataset.fields] == [
        ("r02c03f01", "r02c03", False),
        ("r02c03f02", "r02c03", True),
    ]
    np.testing.assert_array_equal(dataset.inputs("r02c03f02")[..., 1], stacks[2, 5][2])
    np.testing.assert_array_equal(dataset.stain_image("r02c03f01"), stacks[1, 4].max(0))
    by_name = layout_from_options({"pattern": "Index.idx.xml", "inputs": "Brightfield[1,2]"})
    named = prepared(tmp_path / "plate", by_name, tmp_path / "named")
    np.testing.assert_array_equal(named.inputs("r02c03f02"), dataset.inputs("r02c03f02")[..., :2])


def test_one_file_a_plane(tmp_path):
    stack = numbers((12, 20, 21))
    (tmp_path / "raw").mkdir()
    for k, plane in enumerate(stack):
        tifffile.imwrite(tmp_path / "raw" / f"x_z{k}_bf.tif", plane)
    layout = Layout("{field}_z{plane}_{channel}.tif", inputs=(Role("bf", (2, 10)),))
    dataset = prepared(tmp_path / "raw", layout, tmp_path / "out")
    np.testing.assert_array_equal(dataset.inputs("x"), np.moveaxis(stack[[2, 10]], 0, -1))


def test_binning_and_pixel_size(tmp_path):
    write_raw(tmp_path / "raw", {"a": (41, 50)})
    layout = layout_from_options(
        {"pattern": LAYOUT.pattern, "inputs": "phase", "stain": "dapi", "labels": "masks",
         "pixel_size": 0.5}
    )  # fmt: skip
    dataset = prepared(tmp_path / "raw", layout, tmp_path / "out", binning=2)
    field = dataset.field("a")
    assert (field.height, field.width, dataset.pixel_size) == (20, 25, 1.0)
    for array, name, rule in (
        (dataset.inputs("a")[..., 0], "phase", bin_average),
        (dataset.stain_image("a"), "dapi", bin_average),
        (dataset.labels("a"), "masks", bin_labels),
    ):
        np.testing.assert_array_equal(
            array, rule(tifffile.imread(tmp_path / f"raw/a_{name}.tif"), 2)
        )


def test_processes_write_the_same_bytes_as_one(tmp_path):
    write_raw(tmp_path / "raw", dict.fromkeys("abcd", (40, 50)))
    split_of = {"a": "train", "b": "train", "c": "val", "d": "test"}
    calls = []
    one = prepare_raw(tmp_path / "raw", tmp_path / "one", split_of)
    two = prepare_raw(
        tmp_path / "raw", tmp_path / "two", split_of, workers=2, on_field=lambda: calls.append(1)
    )
    assert contents(one.root) == contents(two.root)
    assert len(calls) == 4


def test_the_description_tells_provenance_and_statistics(tmp_path):
    write_raw(tmp_path / "raw", {"a": (40, 50)})
    root = prepare_raw(tmp_path / "raw", tmp_path / "out", {"a": "train"}).root
    record = json.loads((root / "dataset.json").read_text())
    (field,) = record["fields"]
    raw = tmp_path / "raw" / "a_phase.tif"
    assert field["sources"]["phase"] == [{"file": "a_phase.tif", "bytes": raw.stat().st_size}]
    image = tifffile.imread(raw)
    expected = np.percentile(image, record["percentiles"])
    np.testing.assert_allclose(field["input_percentiles"][0], expected)
    assert field["num_labels"] == len(np.unique(tifffile.imread(tmp_path / "raw/a_masks.tif"))) - 1
    assert record["layout"]["inputs"] == ["phase", "phase", "bright"]


def test_an_interrupted_preparation_goes_on_where_it_stopped(tmp_path, monkeypatch):
    write_raw(tmp_path / "raw", dict.fromkeys("abc", (40, 50)))
    split_of = dict.fromkeys("abc", "train")
    converted = []

    def interrupt_after_two():
        converted.append(1)
        if len(converted) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_raw(tmp_path / "raw", tmp_path / "out", split_of, on_field=interrupt_after_two)
    assert not (tmp_path / "out").exists()
    loaded = []
    original = CheckedField.load

    def load(field):
        loaded.append(field.name)
        return original(field)

    monkeypatch.setattr(CheckedField, "load", load)
    # A killed process leaves a draft behind, which is no field.
    (interrupted,) = tmp_path.glob(".out.*.partial/fields")
    (interrupted / ".c.1-1.partial").mkdir()
    resumed = prepare_raw(tmp_path / "raw", tmp_path / "out", split_of)
    assert loaded == ["c"]
    monkeypatch.undo()
    fresh = prepare_raw(tmp_path / "raw", tmp_path / "fresh", split_of)
    assert contents(resumed.root) == contents(fresh.root)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "out", "raw"]


def test_fields_may_come_from_anywhere(tmp_path):
    @dataclasses.dataclass
    class Drawn:
        name: str
        group: str = "one"
        channels: tuple[str, ...] = ("a", "b")
        stain_dtype: np.dtype | None = None
        pixel_size: float | None = 0.5
        sources: dict = dataclasses.field(default_factory=dict)
        stamp: str = ""

        def load(self):
            return numbers((9, 8, 2)), None, numbers((9, 8), dtype=np.int32)

    recipe = Recipe("cell", None, binning=2)
    root = preparation.prepare([Drawn("x")], {"x": "train"}, tmp_path / "out", recipe)
    dataset = open_dataset(root)
    assert (dataset.pixel_size, dataset.inputs("x").shape, dataset.stain) == (1.0, (4, 4, 2), None)
    np.testing.assert_array_equal(dataset.labels("x"), bin_labels(Drawn("x").load()[2], 2))


def test_a_data_set_is_replaced_when_the_new_one_is_whole(tmp_path):
    write_raw(tmp_path / "raw", {"a": (40, 50), "b": (40, 50)})
    root = prepare_raw(tmp_path / "raw", tmp_path / "out", {"a": "train", "b": "test"}).root
    before = contents(root)
    image = np.full((40, 50), 7, np.uint16)  # an empty plane, found while it is converted
    tifffile.imwrite(tmp_path / "raw" / "b_phase.tif", image)
    with pytest.raises(ValueError, match="every pixel is 7"):
        prepare_raw(tmp_path / "raw", root, {"a": "train", "b": "test"})
    assert contents(root) == before
    prepare_raw(tmp_path / "raw", root, {"a": "train"})
    assert [path.name for path in (root / "fields").iterdir()] == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


def test_names_with_spaces_and_other_alphabets(tmp_path):
    raw = tmp_path / "Bilder vom Mikroskop Ü"
    write_raw(raw, {"дата 1 µ": (40, 50)})
    dataset = prepare_raw(raw, tmp_path / "präpariert 1", {"дата 1 µ": "train"})
    assert dataset.inputs("дата 1 µ").shape == (40, 50, 3)


REAL_SETS = {
    "phase_hela_and_others": ("phase", "nuclei", "cell_masks"),
    "brightfield_nuclei": ("brightfield", "nuclei", "nucleus_masks"),
    "brightfield_cytoplasm": ("brightfield", "cytoplasm", ""),
    "dic_hela": ("dic", None, "cell_masks,cell_silver_masks"),
    "phase_t98g": ("phase", None, "cell_masks"),
    "fluorescence_nuclei": ("nuclei", None, "nucleus_masks"),
    "brightfield_zstack": ("brightfield", "nuclei", "nucleus_masks"),
}


@pytest.mark.parametrize("name", REAL_SETS)
def test_real_sets_come_back_pixel_for_pixel(name, real_data, tmp_path):
    inputs, stain, labels = REAL_SETS[name]
    layout = layout_from_options(
        {"pattern": "{field}_{channel}{suffix}", "inputs": inputs, "stain": stain,
         "labels": [label for label in labels.split(",") if label]}
    )  # fmt: skip
    fields, _ = match_files(real_data / name, layout)
    fields = fields[:6]
    checked = check_fields(fields, layout)
    split_of = {field.name: "train" for field in fields}
    root = preparation.prepare(checked, split_of, tmp_path / "out", recipe_of(layout))
    dataset = open_dataset(root)
    assert len(dataset.fields) == len(fields)
    for field in fields:

        def raw(channel, field=field):
            return tifffile.imread(field.files[channel][0].path)

        image = raw(inputs)
        planes = image[None] if image.ndim == 2 else image
        np.testing.assert_array_equal(dataset.inputs(field.name), np.moveaxis(planes, 0, -1))
        assert dataset.inputs(field.name).dtype == image.dtype
        if stain:
            np.testing.assert_array_equal(dataset.stain_image(field.name), raw(stain))
        if dataset.field(field.name).has_labels:
            channel = next(c for c in layout.labels if c in field.files)
            np.testing.assert_array_equal(dataset.labels(field.name), raw(channel))
    if name == "brightfield_zstack":
        assert len(dataset.channels) == 13
    shutil.rmtree(tmp_path / "out")
