import os

import numpy as np
import pytest
import tifffile

from isl_jax.ingest.listing import find_image, image_stem, is_left_over, list_images


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.zeros((2, 2), np.uint8))


def listed(folder, **options):
    return [path.relative_to(folder).as_posix() for path in list_images(folder, **options)]


def test_linked_folders_are_searched_once_and_loops_end(tmp_path):
    touch(tmp_path, "project/plate1/a.tif", "store/plate2/b.tif", "store/c.tif")
    (tmp_path / "project/plate2").symlink_to(tmp_path / "store/plate2")
    (tmp_path / "project/plate2_again").symlink_to(tmp_path / "store/plate2")
    (tmp_path / "project/plate1/up").symlink_to(tmp_path / "project")
    (tmp_path / "project/linked.tif").symlink_to(tmp_path / "store/c.tif")
    found = listed(tmp_path / "project")
    assert sorted(found) == ["linked.tif", "plate1/a.tif", "plate2/b.tif"]


def test_pipes_and_folders_named_like_images_are_passed_over(tmp_path):
    touch(tmp_path, "a.tif", "b.tif/inside.tif")
    os.mkfifo(tmp_path / "pipe.tif")
    assert listed(tmp_path) == ["a.tif", "b.tif/inside.tif"]


def test_what_commands_and_cellpose_wrote_is_no_image(tmp_path):
    touch(
        tmp_path, "x.tif", "x_cp_masks.png", "x_cp_output.png", "x_flows.tif", "x_dP.tif",
        "x_outlines.png", "my_flows.tif", "y_cp_masks.tif", "data/fields/x/inputs.tif",
        "predicted/x_labels.tif", "predicted/new.tif",
        "records/of_another_kind.tif",
    )  # fmt: skip
    np.save(tmp_path / "x_seg.npy", np.zeros(3))
    (tmp_path / "data/dataset.json").write_text("{}")
    (tmp_path / "predicted/records").mkdir()
    (tmp_path / "predicted/records/x.json").write_text('{"files": ["x_labels.tif"]}')
    assert listed(tmp_path) == [
        "my_flows.tif",
        "x.tif",
        "predicted/new.tif",
        "records/of_another_kind.tif",
    ]
    assert "x_seg.npy" in listed(tmp_path, left_over=True)
    assert is_left_over(tmp_path / "z_dP.tif", {"z"}) and not is_left_over(tmp_path / "z_dP.tif")


def test_a_data_set_of_another_program_holds_images(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.tif")
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "phase"}}')  # nnU-Net's
    assert listed(tmp_path) == ["imagesTr/a_0000.tif"]


@pytest.mark.parametrize("name", ["x.tif", "x.ome.tif", "x.OME.TIFF", "x.ome.zarr", "x.npy"])
def test_the_stem_of_an_image(tmp_path, name):
    assert image_stem(tmp_path / name) == "x"


def test_an_image_is_found_by_its_stem_whatever_its_suffix(tmp_path):
    touch(tmp_path, "f2.ome.tif", "f2_other.tif")
    assert find_image(tmp_path, "f2") == tmp_path / "f2.ome.tif"
    assert find_image(tmp_path, "f3") is None
