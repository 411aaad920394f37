"""Figures: what is painted where, and files that are whole and the same each time."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from isl_jax.report import figures
from isl_jax.report.statistics import Interval


def colour(text: str) -> np.ndarray:
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)])


def nearest(pixel: np.ndarray, *colours: str) -> str:
    return min(colours, key=lambda c: np.abs(pixel.astype(int) - colour(c)).sum())


def test_semantic_overlay_tells_hits_from_misses_and_extras():
    truth, mask = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    truth[5:25, 5:25] = True
    mask[5:25, 15:35] = True
    shown = figures.semantic_overlay(np.full((30, 40, 3), 90, np.uint8), mask, truth)
    choices = (figures.HIT, figures.MISSED, figures.EXTRA)
    assert nearest(shown[15, 20], *choices) == figures.HIT
    assert nearest(shown[15, 10], *choices) == figures.MISSED
    assert nearest(shown[15, 30], *choices) == figures.EXTRA
    assert (shown[2, 2] == 90).all() and (shown[15, 15] == 255).all()


def test_instance_overlay_gives_a_matched_cell_the_colour_of_its_truth():
    truth, labels = np.zeros((30, 60), np.int32), np.zeros((30, 60), np.int32)
    truth[5:25, 5:25], truth[5:25, 30:50] = 1, 70_002
    labels[6:25, 5:25], labels[5:12, 30:50] = 9, 4  # the second is too small to match
    picture = np.full((30, 60, 3), 60, np.uint8)
    painted = figures.instance_overlay(picture, labels, truth)
    true = figures.instance_overlay(picture, truth, truth)
    assert (painted[15, 15] == true[15, 15]).all()
    assert np.ptp(painted[8, 40].astype(int)) == 0 and painted[8, 40, 0] > 60  # white, blended
    assert np.ptp(true[15, 15].astype(int)) > 0 and (true[15, 15] != true[15, 40]).any()
    assert (painted[20, 40] == 60).all()


def test_overlay_of_nothing_is_the_picture():
    picture = np.full((8, 9, 3), 50, np.uint8)
    nothing = np.zeros((8, 9), np.int32)
    assert (figures.instance_overlay(picture, nothing, nothing) == picture).all()
    assert (figures.semantic_overlay(picture, nothing > 0, nothing > 0) == picture).all()


def test_grey_spans_its_limits():
    picture = figures.grey(np.array([[-1.0, 0.0, 0.5, 1.0, 9.0]]), limits=(0.0, 1.0))
    assert picture[0, :, 0].tolist() == [0, 0, 127, 255, 255] and picture.shape == (1, 5, 3)
    assert (figures.grey(np.full((4, 4), 7)) == 0).all()  # a constant plane is no error


def test_picture_uri_is_a_jpeg_of_the_picture():
    picture = np.full((20, 30, 3), (200, 100, 50), np.uint8)
    head, _, content = figures.picture_uri(picture).partition(",")
    assert head == "data:image/jpeg;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert shown.shape == picture.shape and np.abs(shown.astype(int) - picture).max() < 12


def _boxes():
    values = {"random": [0.1, 0.2, 0.4], "isl": [0.3, 0.5]}
    return figures.box_plot(values, metric="map", title="N = 1")


def _curves():
    unknown = Interval(float("nan"), float("nan"))
    return figures.learning_curves(
        [1, 10],
        {"random": [0.2, float("nan")], "isl": [0.4, 0.5]},
        {"random": [unknown, unknown], "isl": [Interval(0.3, 0.5), Interval(0.4, 0.6)]},
        metric="iou",
        title="all",
    )


def _panels():
    picture = np.zeros((16, 16, 3), np.uint8)
    return figures.panels([{"input": picture, "stain": picture}, {"input": picture}], ["a", "b"])


@pytest.mark.parametrize("draw", [_boxes, _curves, _panels])
def test_saved_figures_are_whole_and_repeatable(tmp_path, draw):
    uri = figures.save(draw(), tmp_path / "first")
    figures.save(draw(), tmp_path / "second")
    svg = (tmp_path / "first.svg").read_text()
    assert svg.rstrip().endswith("</svg>") and svg == (tmp_path / "second.svg").read_text()
    assert base64.b64decode(uri.partition(",")[2]).decode() == svg
    with Image.open(tmp_path / "first.png") as image:
        assert image.size[0] > 300


def test_box_plot_of_an_arm_without_scores():
    figures.box_plot({"random": [], "isl": [0.5]}, metric="iou", title="N = 1").canvas.draw()


def test_score_axes_start_at_nought_and_hold_every_score():
    low, high = _boxes().axes[0].get_ylim()
    assert low == 0 and 0.5 < high <= 0.6
    assert _curves().axes[0].get_ylim()[1] >= 0.6
