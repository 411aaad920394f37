import numpy as np
import pytest
import tifffile

from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.layouts import layout_from_options
from isl_jax.ingest.overview import look
from tests.data.conftest import LAYOUT, write_raw


def looked(folder, layout):
    (field,), _ = match_files(folder, layout)
    return look(field, layout)


def test_every_role_has_a_line_over_its_chosen_planes(tmp_path):
    image = np.random.default_rng(0).integers(5, 250, (4, 20, 30)).astype(np.uint8)
    image[1, :2] = 255
    tifffile.imwrite(tmp_path / "x_bf.tif", image, photometric="minisblack")
    tifffile.imwrite(tmp_path / "x_dapi.tif", image[0].astype(np.float32) / 4)
    layout = layout_from_options(
        {"pattern": "{field}_{channel}{suffix}", "inputs": "bf[1,2],bf[3]", "stain": "dapi"}
    )
    (two, one, stain), faults = looked(tmp_path, layout)
    assert not faults
    assert (two.channel, two.planes, two.height, two.width) == ("bf[1,2]", 2, 20, 30)
    assert (two.low, two.high) == (image[1:3].min(), 255)
    assert two.saturated == pytest.approx(2 / 40) and two.empty == 0
    assert (one.channel, one.planes, one.saturated) == ("bf[3]", 1, 0)
    assert (stain.channel, stain.saturated, stain.dtype) == ("dapi (stain)", None, np.float32)


def test_empty_planes_are_counted_and_each_fault_is_told_once(tmp_path):
    write_raw(tmp_path, {"a": (40, 50)})
    tifffile.imwrite(tmp_path / "a_phase.tif", np.full((40, 50), 7, np.uint16))
    tifffile.imwrite(tmp_path / "a_masks.tif", np.full((40, 50), -3, np.int16))
    channels, faults = looked(tmp_path, LAYOUT)  # phase stands for two input channels
    assert [channel.empty for channel in channels] == [1, 1, 0, 0]
    assert len(faults) == 2
    assert "a_phase.tif: every pixel is 7" in faults[0] and "from -3" in faults[1]


def test_labels_are_told_by_their_range(tmp_path):
    write_raw(tmp_path, {"a": (40, 50)})
    masks = tifffile.imread(tmp_path / "a_masks.tif")
    channels, _ = looked(tmp_path, LAYOUT)
    assert (channels[-1].channel, channels[-1].high) == ("masks (labels)", masks.max())
