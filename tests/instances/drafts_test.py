"""Drafts on stains whose truth is known, and on stains that show nothing."""

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from isl_jax.instances.drafts import draft_cells, draft_nuclei
from isl_jax.instances.matching import match
from isl_jax.metrics import iou


def ellipses(shape, where) -> np.ndarray:
    """Labels of ellipses (row, column, half axes, angle in degrees)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for label, (y, x, a, b, angle) in enumerate(where, start=1):
        t = np.deg2rad(angle)
        u = (rows - y) * np.cos(t) + (columns - x) * np.sin(t)
        v = -(rows - y) * np.sin(t) + (columns - x) * np.cos(t)
        labels[(u / a) ** 2 + (v / b) ** 2 <= 1] = label
    return labels


# On a grid, with a pair that touches (15, 16) and a long one (17).
NUCLEI = [
    *((30 + 45 * r, 30 + 45 * c, 9 + c, 11, 30 * r) for r in range(2) for c in range(7)),
    (140, 60, 12, 11, 0), (140, 83, 12, 11, 0), (140, 180, 9, 20, 20),
]  # fmt: skip


@pytest.fixture(scope="module")
def nuclei() -> np.ndarray:
    return ellipses((180, 350), NUCLEI)


def stain_of(labels: np.ndarray, *, dtype: type = np.uint16, seed: int = 0) -> np.ndarray:
    """Objects of brightness 1 to 10, blurred, on an uneven background with noise."""
    rng = np.random.default_rng(seed)
    brightness = np.append(0, np.geomspace(150, 1500, int(labels.max())))
    rng.shuffle(brightness[1:])
    background = 200 + 100 * np.linspace(0, 1, labels.shape[1])
    image = ndimage.gaussian_filter(brightness[labels], 1.5) + background
    return np.clip(image + rng.normal(0, 8, labels.shape), 0, None).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_every_nucleus_is_found_bright_or_dim_touching_or_long(nuclei, dtype):
    found = draft_nuclei(stain_of(nuclei, dtype=dtype))
    scores = match(nuclei, found)
    assert found.dtype == np.int32
    assert scores.f1[0] == 1
    assert iou(found > 0, nuclei > 0) > 0.85


def test_the_unit_of_the_stain_does_not_matter(nuclei):
    stain = stain_of(nuclei, dtype=np.float32)
    np.testing.assert_array_equal(draft_nuclei(stain), draft_nuclei(stain / 4096))


@pytest.mark.parametrize(
    "stain",
    [
        np.full((96, 128), 7, np.uint8),
        np.random.default_rng(0).poisson(100, (96, 128)).astype(np.uint16),
        np.random.default_rng(1).normal(0, 1, (96, 128)).astype(np.float32),
        np.random.default_rng(2).poisson(np.linspace(50, 150, 96 * 128).reshape(96, 128)),
    ],
    ids=["constant", "counts", "noise", "ramp"],
)
def test_a_stain_that_shows_nothing_has_no_object(stain):
    assert not draft_nuclei(stain).any()


def test_cells_grow_from_their_nuclei_to_their_common_border():
    # Two touching cells, whose nuclei are off the middle, and one without a nucleus.
    truth = np.zeros((120, 200), np.int32)
    truth[20:100, 20:70], truth[20:100, 70:110], truth[30:90, 140:180] = 1, 2, 3
    nuclei = np.zeros_like(truth)
    nuclei[40:60, 30:50], nuclei[60:80, 80:100] = 4, 9
    border = np.zeros(truth.shape)
    border[20:100, 69:71] = 1
    stain = 100 + 900 * (truth > 0) + 900 * ndimage.gaussian_filter(border, 1.0)
    stain += np.random.default_rng(0).normal(0, 10, truth.shape)
    found = draft_cells(stain.astype(np.uint16), nuclei)
    scores = match(truth, found)
    assert scores.tp[0] == 3 and scores.fp[0] == 0
    assert scores.mean_ap > 0.7


def test_cells_without_nuclei_are_told_apart_by_waists():
    truth = ellipses((140, 240), [(70, 60, 30, 34, 0), (70, 125, 30, 34, 0), (60, 200, 25, 25, 0)])
    stain = 50 + 800 * ndimage.gaussian_filter((truth > 0).astype(float), 1.5)
    stain += np.random.default_rng(0).normal(0, 8, truth.shape)
    assert match(truth, draft_cells(stain.astype(np.uint16))).f1[0] == 1


def test_no_cells_in_an_empty_stain():
    empty = np.random.default_rng(0).poisson(100, (96, 128)).astype(np.uint16)
    assert not draft_cells(empty).any()
    assert not draft_cells(np.full((50, 50), 3, np.uint8), np.zeros((50, 50), np.int32)).any()


def test_nuclei_drawn_by_hand_are_found_in_their_stain(real_data):
    # As good as what the set's authors made of the same stain: 0.85 (hela1).
    folder = real_data / "phase_hela_and_others"
    truth = tifffile.imread(folder / "hela1_nucleus_masks.tif")
    found = draft_nuclei(tifffile.imread(folder / "hela1_nuclei.tif"))
    assert iou(found > 0, truth > 0) > 0.84
    assert match(truth, found).f1[0] > 0.95
