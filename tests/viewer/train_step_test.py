"""The step Train: a training in a process of its own, stopped, found again and resumed."""

import subprocess
import sys

import pytest

from isl_jax.inference.model import load_model
from isl_jax.viewer.watching import SEGMENT, look


@pytest.fixture
def make_step(viewer, application, tmp_path, make_dataset):
    """The step as a user fills it in, for a training of seconds on simulated cells."""
    make_dataset(tmp_path / "data", "cell")

    def make(steps=(3, 3)):
        from isl_jax.viewer.train_step import TrainStep

        step = TrainStep(viewer)
        step.form.data_path.set(tmp_path / "data")
        step.form.init.setCurrentText("random")
        step.form.encoder.setCurrentText("tiny")
        step.form.num_annotated.setValue(1)
        step.form.pretrain_steps.setValue(steps[0])
        step.form.segment_steps.setValue(steps[1])
        step.form.crop_size.setValue(64)
        step.form.batch_size.setValue(4)
        step.form.folder_path.set(tmp_path / "W")
        return step

    return make


def test_both_trainings_from_start_to_score(make_step, viewer, wait, tmp_path):
    step = make_step()
    assert step.form.config.currentText() == "configs/cell.py"
    assert step.told.text() == "6 fields, 2 annotated ones to train on"
    assert step.command.text.count("isl-train") == 2 and "isl-evaluate" in step.command.text
    step.preview.setChecked(True)
    step.field.setCurrentText("well3 s1")
    step.start_button.click()
    assert not step.start_button.isEnabled() and step.stop_button.isEnabled()
    wait(lambda: step.process is None, 300)
    assert step.told.text().startswith(("done", "prediction of")), step.told.text()
    training = look(tmp_path / "W")
    assert training.is_done and not training.is_running
    assert [stage.step for stage in training.stages] == [3, 3]
    assert "withheld fields: mAP" in step.state.text()
    assert load_model(tmp_path / "W" / SEGMENT).info.postprocessing.h is not None
    # The checkpoint's prediction of the field lies on the field.
    wait(lambda: "well3 s1 labels" in viewer.layers)
    place = viewer.layers["well3 s1 bf0"].extent.world
    assert (viewer.layers["well3 s1 probability"].extent.world == place).all()


# Starts a training as the step does, says so, and waits to be killed.
NAPARI = """
import sys, time
from pathlib import Path
from isl_jax.viewer.chain import start_chain
from isl_jax.viewer.watching import TrainingPlan

plan = TrainingPlan(sys.argv[1], sys.argv[2], init="random", encoder="tiny", pretrain_steps=100_000,
            crop_size=64, batch_size=4)
start_chain(Path(sys.argv[2]), plan.commands())
print("started", flush=True)
time.sleep(600)
"""


def test_napari_killed_while_it_trains_loses_nothing(make_step, wait, tmp_path):
    folder = tmp_path / "W"
    words = [sys.executable, "-c", NAPARI, str(tmp_path / "data"), str(folder)]
    napari = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert napari.stdout is not None and napari.stdout.readline() == "started\n"
    napari.kill()
    napari.wait()
    napari.stdout.close()
    wait(lambda: look(folder).stages[0].step >= 10, 300)
    # Another napari, which knows nothing but the folder.
    step = make_step(steps=(1, 1))
    wait(lambda: "running since" in step.state.text())
    assert "num_steps=100000" in step.command.text and not step.form.crop_size.isEnabled()
    step.stop_button.click()
    wait(lambda: not look(folder).is_running, 120)
    stopped = look(folder).stages[0]
    assert stopped.checkpoint and stopped.checkpoint >= 10
    wait(step.start_button.isEnabled)
    assert step.start_button.text() == "Go on"
    step.start_button.click()
    wait(lambda: look(folder).stages[0].step > stopped.step, 300)
    step.stop_button.click()
    wait(lambda: step.process is None, 120)
    assert step.told.text() == "stopped; the same folder goes on from there"
    checkpoint = look(folder).stages[0].checkpoint
    assert checkpoint and checkpoint > stopped.checkpoint


def test_what_went_wrong_is_told(make_step, wait):
    step = make_step()
    step.form.config.setCurrentText("configs/none.py")
    step.start_button.click()
    wait(lambda: step.process is None, 120)
    assert "none.py" in step.told.text() and step.told.styleSheet()


def test_bad_input_is_told_before_anything_starts(make_step, tmp_path):
    step = make_step()
    step.form.data_path.set(tmp_path / "nothing")
    step.start_button.click()
    assert "choose a prepared data set" in step.told.text() and step.process is None
    assert not (tmp_path / "W").exists()
