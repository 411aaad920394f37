"""Every output, read again by the libraries of those who will open it."""

import csv
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import roifile
import tifffile
import zarr as zarr_library
from imagecodecs import png_decode
from ome_zarr_models.v04 import Image, ImageLabel, Labels
from scipy import ndimage
from skimage.measure import label, regionprops

from isl_jax.data.stain import StainScale
from isl_jax.inference.folder import Record
from isl_jax.inference.info import ModelInfo
from isl_jax.inference.large import OpenedImage
from isl_jax.inference.model import Prediction
from isl_jax.ingest import readers
from isl_jax.ingest.ome_zarr import list_zarr_labels
from isl_jax.outputs import pictures, table, zarr
from isl_jax.outputs.catalogue import OUTPUTS, outputs_of, write_outputs
from isl_jax.outputs.rasters import write_labels

PIXEL = 0.5
MAPS = ("probability", "distance")


@dataclasses.dataclass
class Found:
    """What is known of an image once it has been predicted."""

    info: ModelInfo
    image: OpenedImage
    prediction: Prediction

    def write(self, folder, outputs):
        return write_outputs(folder, self.info, outputs, self.image, self.prediction)


@pytest.fixture
def found(make_model, make_planes):
    planes = make_planes(90, 70)
    noise = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((90, 70)), 3)
    labels = np.asarray(label(noise > 0.02), np.int32)
    info = make_model("distance_and_semantic", channels=("dic", "dic", "bf")).info
    prediction = Prediction(
        probability=noise.astype(np.float32), distance=planes[0] / np.float32(7), labels=labels
    )
    return Found(info, OpenedImage("w1 f1", planes, (Path("x.tif"),), (PIXEL, PIXEL)), prediction)


def test_every_output_writes_the_files_it_is_known_by(found, tmp_path):
    outputs = [name for name in OUTPUTS if name != "stain"]
    written = found.write(tmp_path, outputs_of(found.info, outputs))
    assert sorted(written) == sorted(path.name for path in tmp_path.iterdir())
    assert "w1 f1_distance.tif" in written


def test_labels_and_maps_come_back_with_their_pixel_size(found, tmp_path):
    found.write(tmp_path, ["labels", "maps"])
    labels = tmp_path / "w1 f1_labels.tif"
    stored = tifffile.imread(labels)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, found.prediction.labels)
    assert readers.inspect(labels).pixel_size == PIXEL
    with tifffile.TiffFile(labels) as tiff:
        numerator, denominator = tiff.pages.first.tags["XResolution"].value
        assert numerator / denominator == 1e4 / PIXEL  # pixels a centimetre
    for kind in ("probability", "distance"):
        np.testing.assert_array_equal(
            tifffile.imread(tmp_path / f"w1 f1_{kind}.tif"), getattr(found.prediction, kind)
        )


@pytest.mark.parametrize(("largest", "dtype"), [(65_535, np.uint16), (65_536, np.uint32)])
def test_many_objects_need_more_bits(largest, dtype, tmp_path):
    labels = np.zeros((600, 520), np.int32)
    labels[-1, -1] = largest
    write_labels(tmp_path / "labels.tif", labels)
    stored = tifffile.imread(tmp_path / "labels.tif")
    assert stored.dtype == dtype and stored[-1, -1] == largest


def test_rois_and_geojson_hold_one_outline_an_object(found, tmp_path):
    found.write(tmp_path, ["rois", "geojson"])
    labels = found.prediction.labels
    rois = roifile.roiread(tmp_path / "w1 f1_rois.zip")
    features = json.loads((tmp_path / "w1 f1.geojson").read_text())["features"]
    assert len(rois) == len(features) == labels.max()
    for index, (roi, feature) in enumerate(zip(rois, features, strict=True), 1):
        rows, columns = np.nonzero(labels == index)
        assert roi.name == f"{index:05d}"
        ring = np.array(feature["geometry"]["coordinates"][0])
        np.testing.assert_array_equal(ring[0], ring[-1])
        for corners in (roi.coordinates(), ring):
            assert corners.min(axis=0).tolist() == [columns.min(), rows.min()]
            assert corners.max(axis=0).tolist() == [columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (1.0, 0.5)])
def test_a_binned_model_answers_in_pixels_of_the_input(found, tmp_path, spacing):
    """The same objects as of a label image that is twice as large."""
    outputs = ["labels", "maps", "rois", "geojson", "table", "zarr"]
    whole = found.prediction.labels.repeat(2, axis=0).repeat(2, axis=1)
    half = spacing and (spacing[0] / 2, spacing[1] / 2)
    planes = found.image.planes.repeat(2, axis=1).repeat(2, axis=2)
    binned = dataclasses.replace(found.image, name="x", spacing=spacing, binning=2)
    maps = {kind: getattr(found.prediction, kind).repeat(2, 0).repeat(2, 1) for kind in MAPS}
    rows = {}
    for folder, image, prediction in (
        ("binned", binned, found.prediction),
        ("whole", OpenedImage("x", planes, (), half), Prediction(**maps, labels=whole)),
    ):
        (tmp_path / folder).mkdir()
        dataclasses.replace(found, image=image, prediction=prediction).write(
            tmp_path / folder, outputs
        )
        with (tmp_path / folder / "x.csv").open(newline="") as file:
            rows[folder] = list(csv.DictReader(file))
    for one, other in zip(rows["binned"], rows["whole"], strict=True):
        assert one.pop("label_pixel_px") == "2" and one.keys() == other.keys()
        exact = [name for name in one if not re.search("axis|ecc|perim|circul|orient", name)]
        for name in exact:
            assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-5), name
        assert ("x_um" in one) == (spacing == (1, 1)) and ("area_um2" in one) == bool(spacing)
    read = [roifile.roiread(tmp_path / folder / "x_rois.zip") for folder in rows]
    for one, other in zip(*read, strict=True):
        np.testing.assert_array_equal(one.coordinates(), other.coordinates())
    geojson = [(tmp_path / folder / "x.geojson").read_text() for folder in rows]
    assert geojson[0] == geojson[1]
    for file in ("x_labels.tif", "x_probability.tif"):
        with tifffile.TiffFile(tmp_path / "binned" / file) as tiff:
            assert tiff.series[0].shape == (90, 70)
            assert "a pixel is 2 × 2 pixels of the input file" in (tiff.ome_metadata or "")
        assert readers.inspect(tmp_path / "binned" / file).spacing == spacing
    zattrs = json.loads((tmp_path / "binned" / "x.ome.zarr" / ".zattrs").read_text())
    (scale,) = zattrs["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [1.0, *(spacing or (2.0, 2.0))]


def test_images_without_objects_are_in_order(found, tmp_path):
    nothing = np.zeros((90, 70), np.int32)
    empty = Prediction(probability=found.prediction.probability, labels=nothing)
    outputs = ["labels", "rois", "geojson", "table", "overlay", "zarr"]
    image = dataclasses.replace(found.image, name="none")
    dataclasses.replace(found, image=image, prediction=empty).write(tmp_path, outputs)
    assert json.loads((tmp_path / "none.geojson").read_text())["features"] == []
    assert len((tmp_path / "none.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize("band", [2048, 16])
def test_the_table_is_that_of_scikit_image(found, tmp_path, monkeypatch, band):
    monkeypatch.setattr(table, "_BAND_ROWS", band)
    found.write(tmp_path, ["table"])
    with (tmp_path / "w1 f1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = regionprops(found.prediction.labels, np.moveaxis(found.image.planes, 0, -1))
    assert len(rows) == len(expected)
    assert not [name for name in rows[0] if name == "mean_dic[1]"]
    for row, region in zip(rows, expected, strict=True):
        value = {name: float(text) for name, text in row.items()}
        assert value["id"] == region.label
        assert value["area_px"] == region.area
        assert value["area_um2"] == pytest.approx(region.area * PIXEL**2)
        assert [value["y_px"], value["x_px"]] == pytest.approx(region.centroid, rel=1e-5)
        bounds = [value[f"{side}_px"] for side in ("top", "left", "bottom", "right")]
        assert bounds == list(region.bbox)
        assert value["major_axis_um"] == pytest.approx(region.axis_major_length * PIXEL, rel=1e-5)
        assert 0 < value["circularity"] <= 1
        means = [value["mean_dic"], value["mean_bf"]]
        assert means == pytest.approx(region.intensity_mean[[0, 2]], rel=1e-5)


def test_the_zarr_is_an_image_with_labels_inside(found, tmp_path, monkeypatch):
    monkeypatch.setattr(zarr, "_SMALLEST", 32)
    monkeypatch.setattr(zarr, "_CHUNK", 32)
    found.write(tmp_path, ["zarr"])
    path = tmp_path / "w1 f1.ome.zarr"
    info = readers.inspect(path)
    assert info.channels == ("dic", "bf") and info.pixel_size == PIXEL
    np.testing.assert_array_equal(readers.read(path, channel=1)[0], found.image.planes[2])
    labels = list_zarr_labels(path)["cells"]
    np.testing.assert_array_equal(readers.read(labels)[0], found.prediction.labels)
    levels = json.loads((labels / ".zattrs").read_text())["multiscales"][0]["datasets"]
    assert [level["path"] for level in levels] == ["0", "1", "2"]
    shapes = [json.loads((labels / str(k) / ".zarray").read_text())["shape"] for k in range(3)]
    assert shapes == [[90, 70], [45, 35], [23, 18]]


@pytest.mark.parametrize(
    ("height", "width", "dtype"), [(90, 70, np.uint16), (40, 2100, np.float32)]
)
def test_the_zarr_is_what_ome_zarr_models_reads(found, tmp_path, height, width, dtype):
    planes = np.random.default_rng(0).random((3, height, width)) * 1000
    image = OpenedImage("x", planes.astype(dtype), (), (0.5, 0.25), 2)
    labels = np.eye(height, width, dtype=np.int32)
    prediction = dataclasses.replace(found.prediction, labels=labels)
    dataclasses.replace(found, image=image, prediction=prediction).write(tmp_path, ["zarr"])
    group = zarr_library.open_group(tmp_path / "x.ome.zarr", mode="r")
    read = Image.from_zarr(group)
    levels = 1 if width < 1024 else 3
    datasets = read.attributes.multiscales[0].datasets
    assert len(datasets) == levels
    assert datasets[0].coordinateTransformations[0].scale == [1.0, 0.5, 0.25]
    for channel, plane in zip(read.attributes.omero.channels, image.planes[[0, 2]], strict=True):
        window = channel.window
        if dtype == np.float32:
            assert (window.min, window.max) == (plane.min(), plane.max())
        assert window.min <= plane.min() <= window.start < window.end <= window.max
    assert list(Labels.from_zarr(group["labels"]).attributes.labels) == ["cells"]
    inside = ImageLabel.from_zarr(group["labels/cells"])
    assert len(inside.attributes.multiscales[0].datasets) == levels
    assert inside.attributes.image_label.source.image == "../../"


def test_a_zarr_is_written_into_any_folder(found, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found.write(Path(".."), ["zarr"])
    assert readers.read(tmp_path / "w1 f1.ome.zarr").shape == (1, 90, 70)


def test_the_stain_is_in_its_own_units(make_model, tmp_path):
    info = make_model("stain", stain="dapi", stain_scale=StainScale(100.0, 300.0)).info
    stain = np.random.default_rng(0).random((40, 30)).astype(np.float32)
    found = Found(info, OpenedImage("x", None, ()), Prediction(stain=stain))
    assert found.write(tmp_path, ["stain", "overlay"]) == ["x_stain.tif", "x_overlay.png"]
    stored = tifffile.imread(tmp_path / "x_stain.tif")
    np.testing.assert_allclose(stored, 100 + 200 * stain, rtol=1e-6)


def test_overlays_outline_inside_the_objects(found, tmp_path, monkeypatch):
    picture = pictures.overlay(
        found.image.planes, found.prediction.labels, found.prediction.probability
    )
    coloured = picture.std(axis=-1) > 0
    labels = found.prediction.labels
    assert coloured.any() and not coloured[labels == 0].any()
    inner = ndimage.grey_erosion(labels, size=3) == ndimage.grey_dilation(labels, size=3)
    assert not coloured[inner].any()
    monkeypatch.setattr(pictures, "_LONGEST", 45)
    small = pictures.overlay(found.image.planes, labels, found.prediction.probability)
    assert small.shape == (45, 35, 3)


def test_the_contact_sheet_stands_alone(found, tmp_path):
    found.write(tmp_path, ["overlay"])
    record = Record("w1 f1", [], ["overlay"], ["w1 f1_overlay.png"], "", [90, 70], num_objects=7)
    page = pictures.write_contact_sheet(tmp_path, [record], {"bad <one>": "cannot be read"})
    text = page.read_text()
    assert "Content-Security-Policy" in text and "script-src 'sha256-" in text
    assert "7 objects" in text and "bad &lt;one&gt;" in text
    assert "data:image/jpeg;base64," in text and "http" not in text.replace("http-equiv", "")
    assert png_decode((tmp_path / "w1 f1_overlay.png").read_bytes()).shape == (90, 70, 3)


@pytest.mark.parametrize(
    ("name", "link", "shown"),
    [
        ("javascript:alert(1)", "./javascript%3Aalert%281%29_labels.tif", "javascript:alert(1)"),
        ("50% #3 ü?", "./50%25%20%233%20%C3%BC%3F_labels.tif", "50% #3 ü?"),
        ("$x_1$ {a}", "./%24x_1%24%20%7Ba%7D_labels.tif", "$x_1$ {a}"),
        ('"><script>', "./%22%3E%3Cscript%3E_labels.tif", "&quot;&gt;&lt;script&gt;"),
        ("\udcffx", "./%FFx_labels.tif", "?x"),
        ("\ud800x", "./%3Fx_labels.tif", "?x"),
    ],
)
def test_names_are_text_on_the_page(tmp_path, name, link, shown):
    record = Record(name, [], ["labels"], [f"{name}_labels.tif"], "", [90, 70])
    page = pictures.write_contact_sheet(tmp_path, [record], {name: "why"}).read_text()
    assert f'href="{link}"' in page and f"<b>{shown}</b>" in page
    assert f"<b>{shown}</b> why" in page and page.count("<script>") == 1


def test_a_page_of_the_user_stays(tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(ValueError, match=r"index\.html: is another page"):
        pictures.write_contact_sheet(tmp_path, [], {})
    assert (tmp_path / "index.html").read_text() == "mine"


def test_outputs_that_a_model_cannot_give_are_refused(make_model):
    with pytest.raises(ValueError, match="choose among labels"):
        outputs_of(make_model("semantic").info, ["masks"])
    with pytest.raises(ValueError, match="predicts labels"):
        outputs_of(make_model("semantic").info, ["stain"])
    with pytest.raises(ValueError, match="predicts the stain"):
        outputs_of(make_model("stain", stain="dapi").info, ["labels"])
    assert outputs_of(make_model("stain").info) == ("stain",)
    with pytest.raises(ValueError, match="zarr shows the images: give them with --input"):
        outputs_of(make_model("semantic").info, ["labels", "zarr"], with_images=False)
