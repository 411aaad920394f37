import numpy as np
from imagecodecs import jpeg_decode
from skimage.segmentation import find_boundaries

from isl_jax.data.preview import PREVIEW
from tests.data.conftest import prepare_raw, write_raw


def panels(dataset, width):
    image = jpeg_decode((dataset.root / PREVIEW).read_bytes()).astype(float)
    return [image[:, start : start + width] for start in range(0, image.shape[1], width + 4)]


def test_a_row_a_split_with_input_stain_and_outlines(tmp_path):
    write_raw(tmp_path / "raw", dict.fromkeys(["a", "b"], (90, 120)))
    dataset = prepare_raw(tmp_path / "raw", tmp_path / "out", {"a": "test", "b": "train"})
    shown = panels(dataset, 120)
    assert len(shown) == 3 and shown[0].shape == (90 + 4 + 90, 120, 3)
    for panel, channel in ((shown[0], dataset.inputs("b")[..., 0]), (shown[1], None)):
        expected = dataset.stain_image("b") if channel is None else channel
        assert np.corrcoef(panel[:90].mean(-1).ravel(), expected.ravel())[0, 1] > 0.8
    outlines = find_boundaries(dataset.labels("b"), mode="inner")
    colour = shown[2][:90, :, 0] - shown[2][:90, :, 2]  # red against blue
    assert colour[outlines].mean() > 60 > 20 > colour[~outlines].mean()


def test_large_fields_are_reduced_and_what_is_absent_is_black(tmp_path):
    write_raw(tmp_path / "raw", {"a": (301, 650)})
    (tmp_path / "raw" / "a_masks.tif").unlink()
    dataset = prepare_raw(tmp_path / "raw", tmp_path / "out", {"a": "train"})
    image, stain, outlined = panels(dataset, 650 // 3)
    assert image.shape == stain.shape == outlined.shape == (301 // 3, 650 // 3, 3)
    assert image.max() > 200 and outlined[:, 4:].max() < 40
