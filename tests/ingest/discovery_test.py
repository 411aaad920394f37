import numpy as np
import pytest
import tifffile

from isl_jax.ingest.checked import check_fields
from isl_jax.ingest.discovery import channels_there, match_files
from isl_jax.ingest.layouts import layout_from_options
from isl_jax.ingest.presets import PRESETS
from tests.ingest.readers_test import write_group, write_zarr

GREY = np.arange(20 * 24, dtype=np.uint16).reshape(20, 24)
FOLDER = {"pattern": "{field}_{channel}{suffix}", "inputs": "phase"}


def write(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        tifffile.imwrite(folder / name, GREY)


def found(folder, layout=None, **options):
    layout = layout or layout_from_options(FOLDER | options)
    fields, unmatched = match_files(folder, layout)
    return {field.name: sorted(field.files) for field in fields}, [path.name for path in unmatched]


def test_ome_tiff_pairs_like_tiff(tmp_path):
    write(tmp_path / "a", "a_phase.ome.tif", "a_masks.ome.tif", "b_phase.OME.TIFF", "b_masks.tif")
    both = {"a": ["masks", "phase"], "b": ["masks", "phase"]}
    assert found(tmp_path / "a", labels="masks") == (both, [])
    write(tmp_path / "b", "b.ome.tif", "b_masks.ome.tif", "c.tif", "c_cp_masks.png.ome.tif")
    fields, _ = found(tmp_path / "b", PRESETS["cellpose"])
    assert fields["b"] == ["0", "masks"] and "b_masks.ome" not in fields


def test_what_cellpose_leaves_beside_an_image_is_no_field(tmp_path):
    left = ["x_cp_output.png", "x_outlines.png", "x_dP.tif", "x_flows.tif"]
    write(tmp_path / "a", "x.tif", "x_cp_masks.tif", "my_dP.tif", *left[2:])
    for name in left[:2]:
        (tmp_path / "a" / name).write_bytes(b"not looked into")
    fields, unmatched = found(tmp_path / "a", PRESETS["cellpose"])
    assert fields == {"my_dP": ["0"], "x": ["0", "cp_masks"]} and unmatched == sorted(left)


def test_excluded_fields_are_not_opened_and_a_bad_file_is_the_fault_of_its_field(tmp_path):
    write(tmp_path / "a", "x.tif", "z.tif")
    (tmp_path / "a/y.tif").write_bytes(b"no image")
    layout = PRESETS["cellpose"]
    fields, _ = match_files(tmp_path / "a", layout, exclude="^y$")
    assert [field.name for field in fields] == ["x", "z"]
    check_fields(fields, layout)
    fields, _ = match_files(tmp_path / "a", layout)
    assert [bool(field.fault) for field in fields] == [False, True, False]
    with pytest.raises(ValueError, match=r"y.tif: .*leave the field out with --exclude='\^y\$'"):
        check_fields(fields, layout)


def test_a_plate_with_a_missing_well_keeps_its_other_fields(tmp_path):
    plate = tmp_path / "p.zarr"
    write_group(plate, {"plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}]}}, "0.4")
    write_group(plate / "A/1", {"well": {"images": [{"path": "0"}]}}, "0.4")
    write_zarr(plate / "A/1/0", GREY[None], "cyx", version="0.4")
    fields, _ = match_files(tmp_path, PRESETS["omezarr"])
    assert [(f.name, type(f.fault)) for f in fields] == [
        ("p A_1_0", type(None)), ("p B_2", FileNotFoundError)
    ]  # fmt: skip
    fields, _ = match_files(tmp_path, PRESETS["omezarr"], exclude="B_2")
    assert [field.name for field in fields] == ["p A_1_0"]


def write_named(folder, name, channels):
    folder.mkdir(exist_ok=True)
    metadata = {"axes": "CYX", "Channel": {"Name": channels}}
    tifffile.imwrite(folder / name, np.stack([GREY + k for k in range(len(channels))]),
                     metadata=metadata)  # fmt: skip


def test_one_number_for_channels_of_different_names_is_a_fault(tmp_path):
    write_named(tmp_path / "a", "m0.ome.tif", ["BF", "DAPI"])
    write_named(tmp_path / "a", "m1.ome.tif", ["DAPI", "BF"])
    layout = layout_from_options({"pattern": "{field}{suffix}", "inputs": "0", "stain": "1"})
    fields, _ = match_files(tmp_path / "a", layout)
    with pytest.raises(ValueError, match=r"m1.ome.tif: channel 0 is 'DAPI', but in .*m0.*'BF'"):
        check_fields(fields, layout)
    by_name = layout_from_options({"pattern": "{field}{suffix}", "inputs": "bf", "stain": "dapi"})
    fields, _ = match_files(tmp_path / "a", by_name)
    checked = check_fields(fields, by_name)
    assert [int(field.load()[0][0, 0, 0]) for field in checked] == [0, 1]
    write_named(tmp_path / "b", "m0.ome.tif", ["BF", "DAPI"])
    write_named(tmp_path / "b", "m1.ome.tif", ["bf", "dapi"])
    fields, _ = match_files(tmp_path / "b", layout)
    assert len(check_fields(fields, layout)) == 2


def test_the_channels_that_are_there_are_named(tmp_path):
    write(
        tmp_path / "a", *(f"a_{k}_{c}.tif" for k in "01" for c in ("phase", "dapi", "cell_masks"))
    )
    (tmp_path / "a/a_0_rois.zip").write_bytes(b"")
    layout = layout_from_options(FOLDER | {"labels": "mask"})
    fields, unmatched = match_files(tmp_path / "a", layout)
    there, rois = channels_there(tmp_path / "a", fields, unmatched)
    assert there == ["cell_masks", "dapi", "phase"] and rois == ["a_0_rois.zip"]


@pytest.mark.parametrize("url", ["../x.tif", "/etc/x.tif", "a\\b.tif", ".."])
def test_an_opera_index_names_no_files_of_other_folders(tmp_path, url):
    (tmp_path / "Index.idx.xml").write_text(
        "<E><Images><Image><Row>1</Row><Col>1</Col><FieldID>1</FieldID><ChannelID>5</ChannelID>"
        f"<PlaneID>1</PlaneID><URL>{url}</URL></Image></Images></E>"
    )
    with pytest.raises(ValueError, match=r"Index.idx.xml: .*is not beside it"):
        match_files(tmp_path, PRESETS["opera"])
