"""The steps Annotate and Images: what is drawn is kept, whatever happens, and prepared."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from isl_jax.data.store import open_dataset
from isl_jax.viewer.annotating import IGNORE, Annotation, hand_over

SHAPE = (64, 80)


@pytest.fixture
def folder(tmp_path, make_planes):
    """Three fields with image and stain, the second with a draft."""
    root = tmp_path / "todo"
    root.mkdir()
    for number in range(3):
        image, stain = make_planes(*SHAPE, channels=2, seed=number)
        tifffile.imwrite(root / f"w{number}_image.tif", image)
        tifffile.imwrite(root / f"w{number}_stain.tif", stain)
    draft = np.zeros(SHAPE, np.uint16)
    draft[10:20, 10:20] = 7
    tifffile.imwrite(root / "w1_draft.tif", draft)
    return root


@pytest.fixture
def step(viewer, application, folder):
    # As the window gives it to plugins.
    from napari.utils._proxies import PublicOnlyProxy

    from isl_jax.viewer.annotate_step import AnnotateStep

    step = AnnotateStep(PublicOnlyProxy(viewer))
    step.timer.stop()
    step.folder_path.set(folder)
    step.open()
    return step


def names(viewer):
    return [layer.name for layer in viewer.layers]


def test_field_after_field(step, viewer, folder):
    assert names(viewer) == ["w0 image", "w0 stain (stain)", "w0 masks"]
    assert step.count.text() == "0 of 3 fields annotated"
    step.next_button.click()
    assert "no object is drawn" in step.told.text() and step.told.styleSheet()
    viewer.layers["w0 masks"].data[:9, :9] = 1
    step.new_button.click()
    assert viewer.layers["w0 masks"].selected_label == 2
    step.ignore_button.click()
    assert viewer.layers["w0 masks"].selected_label == IGNORE
    viewer.layers["w0 masks"].data[40:, :] = IGNORE
    step.next_button.click()
    masks = tifffile.imread(folder / "w0_masks.tif")
    assert (masks[:9, :9] == 1).all() and (masks[40:] == IGNORE).all()
    assert step.count.text() == "1 of 3 fields annotated"
    # The draft of the next one is where drawing begins.
    assert names(viewer)[-1] == "w1 masks" and viewer.layers["w1 masks"].data[15, 15] == 7
    step.next_button.click()
    viewer.layers["w2 masks"].data[:9, :9] = 3
    step.next_button.click()
    assert "all fields are annotated" in step.told.text()
    assert sorted(path.name for path in folder.glob("*_unfinished*")) == []


def test_masks_are_prepared_by_the_step_images(step, viewer, folder, application, wait, tmp_path):
    for number in range(3):
        layer = viewer.layers[f"w{number} masks"]
        layer.data[:12, :12] = 1
        layer.data[20:40, 20:40] = 2
        layer.data[60:] = IGNORE
        step.next_button.click()
    step.out_path.set(tmp_path / "data")
    from isl_jax.viewer.images_step import ImagesStep

    images = ImagesStep(viewer)
    images.source_path.set(folder)
    images.out_path.set(tmp_path / "data")
    images.inputs.setText("image")
    images.stain.setText("stain")
    images.labels.setText("masks")
    images.more.setText(f"--ignore={IGNORE}")
    assert set(images.command.text.split()) == set(step.command.text.split())
    ended = []
    images.running.ended.connect(ended.append)
    images.look()
    wait(lambda: ended, 300)
    assert images.told.text() == "no faults: it can be prepared", images.table.toPlainText()
    assert "w2" in images.table.toPlainText() and not (tmp_path / "data").exists()
    images.prepare()
    wait(lambda: len(ended) == 2, 300)
    assert ended == [0, 0], images.told.text()
    dataset = open_dataset(tmp_path / "data")
    labels = np.asarray(dataset.labels("w0"))
    assert np.unique(labels).tolist() == [0, 1, 2]
    # A fault is told in words.
    tifffile.imwrite(folder / "w1_stain.tif", np.zeros((9, 9), np.uint16))
    images.look()
    wait(lambda: len(ended) == 3, 300)
    assert ended[2] == 1 and "w1" in images.told.text() and images.told.styleSheet()


NAPARI = """
import os, sys
os.environ["QT_QPA_PLATFORM"] = "offscreen"
from pathlib import Path
from qtpy.QtWidgets import QApplication
application = QApplication([])
from napari.components import ViewerModel
from isl_jax.viewer.annotate_step import AnnotateStep

step = AnnotateStep(ViewerModel())
step.timer.setInterval(20)
step.folder_path.set(sys.argv[1])
step.open()
step.viewer.layers["w0 masks"].data[5:25, 5:25] = 4
while not (Path(sys.argv[1]) / "w0_unfinished.tif").exists():
    application.processEvents()
print("kept", flush=True)
while True:
    application.processEvents()
"""


def test_napari_killed_while_it_annotates_loses_nothing(napari, folder):
    words = [sys.executable, "-W", "ignore", "-c", NAPARI, str(folder)]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None and running.stdout.readline() == "kept\n"
    running.kill()
    running.wait()
    running.stdout.close()
    annotation = Annotation(folder)
    first = annotation.fields()[0]
    labels, kind = annotation.labels(first, SHAPE)
    assert kind == "unfinished" and (labels[5:25, 5:25] == 4).all() and labels.sum() == 1600
    assert not first.is_done
    annotation.finish(first, labels)
    assert first.is_done and not first.file("unfinished").exists()


def test_another_field_is_chosen_while_one_is_drawn(step, viewer, folder):
    viewer.layers["w0 masks"].data[:9, :9] = 1
    step.show_field(2)
    assert (folder / "w0_unfinished.tif").exists() and names(viewer)[-1] == "w2 masks"
    step.show_field(0)
    assert viewer.layers["w0 masks"].data[0, 0] == 1


def test_predicted_labels_go_on_as_annotation(step, viewer, folder):
    labels = np.zeros(SHAPE, np.int32)
    labels[10:18, 10:26] = 5
    images = (folder / "w2_image.tif",)
    assert hand_over(images, labels, 1) == folder / "w2_unfinished.tif"
    step.show_field(2)
    np.testing.assert_array_equal(viewer.layers["w2 masks"].data, labels)
    with pytest.raises(ValueError, match="finish it in step 2 first"):
        hand_over(images, labels, 1)
    # Labels of blocks of pixels are enlarged; what is not of a size is told.
    images = (folder / "w1_image.tif",)
    hand_over(images, labels[:21, :26], 3)
    enlarged = tifffile.imread(folder / "w1_unfinished.tif")
    assert enlarged.shape == SHAPE
    np.testing.assert_array_equal(enlarged[1:63:3, 1:78:3], labels[:21, :26])
    with pytest.raises(ValueError, match="do not fit"):
        hand_over((folder / "w0_image.tif",), labels, 2)
    with pytest.raises(ValueError, match="in no file"):
        hand_over((), labels, 1)


def test_what_does_not_fit_is_told(step, viewer, folder):
    tifffile.imwrite(folder / "w2_masks.tif", np.ones((9, 9), np.uint16))
    step.attempt(lambda: step.show_field(2))
    assert "is 9 × 9 pixels, the image 64 × 80" in step.told.text()
    step.folder_path.set(folder / "nothing")
    step.attempt(step.open)
    assert "no such folder" in step.told.text()


def test_the_order_of_a_folder_of_isl_annotate(folder):
    record = {"fields": [{"name": "w2"}, {"name": "w0"}]}
    (folder / "annotate.json").write_text(json.dumps(record))
    annotation = Annotation(folder)
    assert [field.name for field in annotation.fields()] == ["w2", "w0"]
    assert str(annotation.command("D")) == f"isl-prepare --source={folder} --ignore=65535 --out=D"
    labels = np.ones(SHAPE, np.int32)
    labels[0] = IGNORE
    masks = annotation.finish(annotation.fields()[0], labels)
    assert np.array_equal(tifffile.imread(masks), labels)
