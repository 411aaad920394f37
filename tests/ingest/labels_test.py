import numpy as np
import pytest
import tifffile
from imagecodecs import png_encode
from skimage.measure import label
from skimage.segmentation import expand_labels

from isl_jax.ingest.fields import Part, RawField
from isl_jax.ingest.images import AskForError
from isl_jax.ingest.labels import (
    count_pieces,
    instances_from_interior,
    instances_from_mask,
    label_fault,
    read_label_image,
)


def same_objects(labels, expected):
    """Whether both draw the same objects, whatever their ids."""
    pairs = np.unique(np.stack([labels.ravel(), expected.ravel()]), axis=1)
    counts = len(np.unique(labels)), len(np.unique(expected)), pairs.shape[1]
    return len(set(counts)) == 1 and np.array_equal(labels > 0, expected > 0)


def drawn(shape=(120, 150), *, seed=0):
    """Interiors (discs, some touching by a corner) and edges, as masks of 0 and 255."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: shape[0], : shape[1]]
    interior = np.zeros(shape, bool)
    for _ in range(12):
        centre, radius = rng.uniform(0, shape), rng.uniform(5, 9)
        interior |= (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
    edge = (expand_labels(interior.astype(int), 5) > 0) & ~interior
    return interior * np.uint8(255), edge * np.uint16(65535)


def test_components_touch_by_sides_and_not_by_corners():
    mask = np.zeros((6, 6), np.uint8)
    mask[0:2, 0:2] = mask[2:4, 2:4] = 255
    mask[5, 5] = 1
    labels = instances_from_mask(mask)
    assert labels.dtype == np.int32 and labels.max() == 3
    assert same_objects(labels, label(mask > 0, connectivity=1))


@pytest.mark.parametrize("seed", range(4))
def test_cells_grow_into_the_edge_by_no_more_than_their_reach(seed):
    interior, edge = drawn(seed=seed)
    labels = instances_from_interior(interior, edge)
    cells = label(interior > 0, connectivity=1)
    grown = expand_labels(cells, 3)
    assert same_objects(labels, np.where((edge > 0) | (interior > 0), grown, 0))
    assert same_objects(np.where(interior > 0, labels, 0), cells)
    wider = instances_from_interior(interior, edge, reach=5)
    assert (wider > 0).sum() > (labels > 0).sum() > (interior > 0).sum()


def test_edge_pixels_go_to_the_nearest_cell_and_the_background_to_none():
    interior, edge = np.zeros((9, 30), bool), np.zeros((9, 30), bool)
    interior[:, :10], interior[:, 14:22] = True, True
    edge[:, 10:14] = True
    labels = instances_from_interior(interior, edge)
    assert labels[4].tolist() == [1] * 12 + [2] * 10 + [0] * 8


def test_slips_of_the_pen_are_no_cells():
    interior = np.zeros((40, 40), np.uint8)
    interior[:7, :7] = 255  # 49 pixels
    interior[20:30, 20:25] = 255  # 50 pixels
    labels = instances_from_interior(interior, np.zeros_like(interior))
    assert labels.max() == 1 and (labels > 0).sum() == 50
    assert instances_from_interior(interior * 0, interior).max() == 0
    assert instances_from_interior(interior, interior, smallest=1).max() == 2


def cells(count=6):
    """That many squares of ids 1…n."""
    labels = np.zeros((40, 50), np.uint16)
    for k in range(count):
        labels[2 + 12 * (k // 4) :, 2 + 12 * (k % 4) :][:8, :8] = k + 1
    return labels


def fault_of(labels, *, study="cell", text="masks"):
    field = RawField("f", "f", {"masks": (Part("f_masks.tif"),)})
    return label_fault(field, text, *count_pieces(labels), study)


def test_pieces_of_ids_are_counted_and_corners_join():
    labels = cells()
    assert count_pieces(labels) == (6, 0)
    labels[20, 49] = 1
    labels[10, 10] = 1  # at the corner of the first square
    assert count_pieces(labels) == (6, 1)
    assert count_pieces(labels * 0) == (0, 0)
    assert count_pieces((labels > 0).astype(np.int32) * 255) == (1, 1)


@pytest.mark.parametrize("value", [1, 255, 65535])
def test_a_mask_is_no_ids_of_cells_and_the_remedy_is_told(value):
    fault = fault_of((cells() > 0) * np.int32(value))
    assert isinstance(fault, AskForError)
    assert (fault.role, fault.value) == ("labels", "masks:components")
    assert "one id in several pieces" in str(fault) and str(fault).startswith("f_masks.tif: ")
    assert fault_of((cells() > 0) * np.int32(value), study="nucleus") is None
    assert fault_of((cells() > 0) * np.int32(value), text="masks:components") is None
    assert fault_of((cells(1) > 0) * np.int32(value)) is None


def test_most_ids_in_pieces_are_a_fault_and_a_speck_is_none():
    shared = (cells(6) + 1) // 2
    assert "3 ids, 3 of them in several pieces" in str(fault_of(shared))
    specked = cells()
    specked[38, 48] = 2
    assert fault_of(specked) is None and fault_of(cells()) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, np.uint32])
def test_whole_numbers_are_ids_whatever_their_type(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "x.tif", cells().astype(dtype))
    read = read_label_image(tmp_path / "x.tif")
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, cells())


def ignoring(dtype, value):
    labels = cells().astype(dtype)
    labels[-3:] = value
    return labels


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (cells() + np.float32(0.5), "no whole numbers"),
        (np.where(cells() > 2, np.nan, cells()), "no whole numbers"),
        (cells().astype(np.int16) - 1, "from -1 to 5"),
        (cells().astype(np.float64) + 2.0**40, "number the cells from 1"),
        (np.stack([cells()] * 3), "3 planes"),
        (ignoring(np.uint16, 65535), "150 pixels have the label 65535"),
        (ignoring(np.uint8, 255), "150 pixels have the label 255"),
    ],
)
def test_what_cannot_be_ids_is_refused_by_name(tmp_path, labels, told):
    tifffile.imwrite(tmp_path / "x.tif", labels, photometric="minisblack")
    with pytest.raises(ValueError, match=rf"x.tif: .*{told}"):
        read_label_image(tmp_path / "x.tif")


def test_all_ids_of_a_type_in_use_are_no_ignored_pixels(tmp_path):
    labels = np.arange(2000).reshape(40, 50).clip(0, 255).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", labels)
    assert read_label_image(tmp_path / "x.tif").max() == 255


def test_labels_in_several_channels_or_colours_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "c.tif", np.stack([cells()] * 2), imagej=True,
                     metadata={"axes": "CYX"})  # fmt: skip
    with pytest.raises(ValueError, match=r"c.tif: labels have 2 channels"):
        read_label_image(tmp_path / "c.tif")
    drawn = np.stack([cells(), cells() * 3, cells() * 7], -1).astype(np.uint8)
    (tmp_path / "d.png").write_bytes(png_encode(drawn))
    with pytest.raises(ValueError, match=r"d.png: labels are a colour image"):
        read_label_image(tmp_path / "d.png")


def test_masks_with_white_as_lowest_value_are_read_as_they_look_or_refused(tmp_path):
    mask = cells() > 0
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, mask)  # the library says miniswhite of its own accord, and means 1
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages.first.photometric == 0
    np.testing.assert_array_equal(read_label_image(path) > 0, mask)
    white = np.where(mask, 0, 255).astype(np.uint8)
    tifffile.imwrite(path, white, photometric="miniswhite")
    np.testing.assert_array_equal(read_label_image(path) > 0, mask)
    tifffile.imwrite(path, 255 - white, photometric="miniswhite")
    with pytest.raises(ValueError, match=r"x.tif: .*its background would be an object"):
        read_label_image(path)
