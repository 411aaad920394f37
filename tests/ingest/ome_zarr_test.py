import json

import numpy as np
import pytest

from isl_jax.ingest import readers
from isl_jax.ingest.listing import list_images
from isl_jax.ingest.ome_zarr import list_zarr_images, list_zarr_labels
from tests.ingest.readers_test import write_group, write_zarr

IMAGE = np.arange(2 * 8 * 9, dtype=np.uint16).reshape(2, 8, 9)


def edit(path, change):
    """Change the attributes of a Zarr 2 group."""
    attributes = json.loads((path / ".zattrs").read_text())
    change(attributes)
    (path / ".zattrs").write_text(json.dumps(attributes))


def written(path, change=lambda attributes: None):
    write_zarr(path, IMAGE, "cyx", version="0.4", names=["BF", "DAPI"])
    edit(path, change)
    return path


def scaled(dataset, multiscale, units=("micrometer", "micrometer")):
    def change(attributes):
        (image,) = attributes["multiscales"]
        image["axes"] = [
            {"name": "c"},
            *({"name": n, "unit": u} for n, u in zip("yx", units, strict=True)),
        ]
        image["datasets"][0]["coordinateTransformations"] = dataset
        image["coordinateTransformations"] = multiscale

    return change


def scale(*values):
    return [{"type": "scale", "scale": list(values)}]


@pytest.mark.parametrize(
    ("change", "spacing"),
    [
        (scaled(scale(1, 0.5, 0.5), scale(1, 0.325, 0.325)), (0.1625, 0.1625)),
        (scaled([], scale(1, 0.325, 0.325)), (0.325, 0.325)),
        (scaled(scale(1, 0.5, 0.25), None), (0.5, 0.25)),
        (scaled(scale(1, 1625, 0.5), None, ("angstrom", "micrometer")), (0.1625, 0.5)),
        (scaled(scale(1, 0.5, 0.5), None, (None, None)), None),
        (scaled(scale(1, 0, 0.5), None), None),
        (scaled(scale(1, "x", 0.5), None), None),
        (scaled(scale(1), None), None),
        (scaled([{"type": "translation", "translation": [0, 1, 1]}], None), None),
    ],
)
def test_scales_are_multiplied_and_the_sides_of_a_pixel_kept_apart(tmp_path, change, spacing):
    info = readers.inspect(written(tmp_path / "x.zarr", change))
    assert info.spacing == (spacing and pytest.approx(spacing))


@pytest.mark.parametrize("omero", [None, {}, {"channels": None}, {"channels": [{}, {}]}])
def test_channels_without_names_go_by_number(tmp_path, omero):
    path = written(tmp_path / "x.zarr", lambda attributes: attributes.update(omero=omero))
    assert readers.inspect(path).channels == ("0", "1")


def test_axes_of_version_0_3_are_names(tmp_path):
    path = written(tmp_path / "x.zarr", lambda a: a["multiscales"][0].update(axes=list("cyx")))
    image = readers.open_image(path)
    np.testing.assert_array_equal(image.read(1), IMAGE[1:])
    np.testing.assert_array_equal(image.mapped(1, 0)[2:5, 3:99], IMAGE[1, 2:5, 3:])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("listed", [["1", "0", "10"], None])
def test_the_series_of_bioformats2raw_are_images_in_order(tmp_path, version, listed):
    root = tmp_path / "scan.zarr"
    write_group(root, {"bioformats2raw.layout": 3}, version)
    write_group(root / "OME", {"series": listed} if listed else {}, version)
    for name in ("0", "1", "10"):
        write_zarr(root / name, IMAGE, "cyx", version=version)
    found = [path.name for path in list_zarr_images(root)]
    assert found == (listed or ["0", "1", "10"])
    assert [path.name for path in list_images(tmp_path)] == found
    with pytest.raises(ValueError, match=r"scan.zarr: holds 3 images .* name one of them"):
        readers.inspect(root)


def test_several_multiscales_are_several_images(tmp_path):
    def change(attributes):
        attributes["multiscales"] = attributes["multiscales"] * 2
        attributes["multiscales"][0] = attributes["multiscales"][0] | {"name": "raw"}

    with pytest.raises(ValueError, match=r"x.zarr: holds 2 images \(raw, 1\)"):
        readers.inspect(written(tmp_path / "x.zarr", change))


@pytest.mark.parametrize("name", ["../../x", "/etc", "..", "a/../../x", "", ".", "a\\..\\x", 3])
def test_metadata_lead_nowhere_outside(tmp_path, name):
    path = written(
        tmp_path / "x.zarr", lambda a: a["multiscales"][0]["datasets"][0].update(path=name)
    )
    with pytest.raises(ValueError, match=r"x.zarr: its metadata name .* not inside"):
        readers.inspect(path)
    write_group(path / "labels", {"labels": [name]}, "0.4")
    with pytest.raises(ValueError, match="not inside"):
        list_zarr_labels(path)
    plate = tmp_path / "p.zarr"
    write_group(plate, {"plate": {"wells": [{"path": name}]}}, "0.4")
    with pytest.raises(ValueError, match="not inside"):
        list(list_zarr_images(plate))


def test_wells_and_positions_that_were_not_copied_are_listed_and_then_missed(tmp_path):
    plate = tmp_path / "p.zarr"
    write_group(plate, {"plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}]}}, "0.4")
    write_group(plate / "A/1", {"well": {"images": [{"path": "0"}, {"path": "1"}]}}, "0.4")
    write_zarr(plate / "A/1/0", IMAGE, "cyx", version="0.4")
    found = [path.relative_to(plate).as_posix() for path in list_zarr_images(plate)]
    assert found == ["A/1/0", "A/1/1", "B/2"]
    for name in found[1:]:
        with pytest.raises(FileNotFoundError, match=f"{name}: no such file"):
            readers.inspect(plate / name)


@pytest.mark.parametrize("chunks", [[1, 1000, 1000], [1, 100_000, 100_000]])
def test_an_image_that_its_chunks_cannot_hold_is_refused(tmp_path, chunks):
    path = written(tmp_path / "x.zarr")
    record = json.loads((path / "0/.zarray").read_text())
    record |= {"shape": [1, 100_000, 100_000], "chunks": chunks}
    (path / "0/.zarray").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"x.zarr.*it declares 2e\+10 bytes"):
        readers.inspect(path)
