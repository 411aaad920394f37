"""What isl-predict writes, opened by others: readers of napari, shapely, roifile."""

import json
import zipfile

import numpy as np
import pytest
import roifile
from skimage.draw import disk

from isl_jax.inference.large import OpenedImage
from isl_jax.inference.model import Prediction
from isl_jax.outputs.catalogue import files_of_image, write_outputs

SPACING = (0.5, 0.25)
shapely = pytest.importorskip("shapely")
OUTPUTS = ("labels", "maps", "zarr", "rois", "geojson", "table")


@pytest.fixture
def written(tmp_path, make_model, make_planes):
    """All files of an image with three discs in it; the labels and planes beside."""
    labels = np.zeros((90, 120), np.int32)
    for number, centre in enumerate([(20, 20), (45, 60), (70, 95)], 1):
        labels[disk(centre, 12)] = number
    planes = make_planes(90, 120, channels=3)
    info = make_model("distance_and_semantic", channels=("dic", "dic", "bf")).info
    maps = {"distance": labels * np.float32(3), "probability": (labels > 0).astype(np.float32)}
    image = OpenedImage("w1", planes, (), SPACING)
    write_outputs(tmp_path, info, OUTPUTS, image, Prediction(labels=labels, **maps))
    assert all((tmp_path / name).exists() for name in files_of_image(info, OUTPUTS, "w1"))
    return tmp_path, labels, planes


def test_ome_zarr_by_its_own_plugin(viewer, written):
    pytest.importorskip("napari_ome_zarr")
    folder, labels, planes = written
    viewer.open(str(folder / "w1.ome.zarr"), plugin="napari-ome-zarr")
    kinds = [type(layer).__name__ for layer in viewer.layers]
    assert kinds == ["Image", "Image", "Labels"]
    for layer, name, plane in zip(viewer.layers, ("dic", "bf"), planes[[0, 2]], strict=False):
        assert layer.name.endswith(name)
        low, high = np.percentile(plane, [0.5, 99.5])
        np.testing.assert_allclose(layer.contrast_limits, [low, high], atol=1)
        np.testing.assert_array_equal(np.asarray(layer.data), plane)
    np.testing.assert_array_equal(np.asarray(viewer.layers[2].data), labels)
    for layer in viewer.layers:
        assert tuple(layer.scale) == SPACING
        assert {str(unit) for unit in layer.units} == {"micrometer"}


def test_tiff_and_table_by_ours_over_the_zarr(viewer, written):
    pytest.importorskip("napari_ome_zarr")
    folder, labels, _ = written
    viewer.open(str(folder / "w1.ome.zarr"), plugin="napari-ome-zarr")
    for name in ("w1_labels.tif", "w1_distance.tif"):
        viewer.open(str(folder / name), plugin="isl-jax")
    zarr, ours, distance = (
        viewer.layers[2],
        viewer.layers["w1 labels"],
        viewer.layers["w1 distance"],
    )
    np.testing.assert_array_equal(ours.data, np.asarray(zarr.data))
    np.testing.assert_array_equal(ours.extent.world, zarr.extent.world)
    np.testing.assert_array_equal(distance.extent.world, zarr.extent.world)
    assert ours.units == zarr.units
    viewer.open(str(folder / "w1.csv"), plugin="isl-jax")
    points = viewer.layers["w1 objects"]
    assert list(points.features["id"]) == [1, 2, 3]
    # Pixels that are not square: places in pixels.
    inside = labels[tuple(np.rint(points.data).astype(int).T)]
    np.testing.assert_array_equal(inside, [1, 2, 3])


def test_tiff_by_napari_alone_has_its_values(viewer, written):
    folder, labels, _ = written
    viewer.open(str(folder / "w1_labels.tif"), plugin="napari", layer_type="labels")
    np.testing.assert_array_equal(viewer.layers[0].data, labels)


def test_outlines_by_shapely(written):
    folder, labels, _ = written
    features = json.loads((folder / "w1.geojson").read_text())["features"]
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    assert len(shapes) == 3 and all(shape.is_valid for shape in shapes)
    areas = np.bincount(labels.ravel())[1:]
    np.testing.assert_allclose([shape.area for shape in shapes], areas)
    rows, columns = np.nonzero(labels == 2)
    centre = shapes[1].centroid
    # Outlines run along the edges of pixels, whose centres are at a half.
    np.testing.assert_allclose([centre.y, centre.x], [rows.mean() + 0.5, columns.mean() + 0.5])


def test_outlines_by_roifile(written):
    folder, labels, _ = written
    with zipfile.ZipFile(folder / "w1_rois.zip") as archive:
        assert len(archive.namelist()) == 3
    rois = roifile.roiread(folder / "w1_rois.zip")
    for number, roi in enumerate(rois, 1):
        polygon = shapely.Polygon(roi.coordinates())
        assert polygon.area == (labels == number).sum()
