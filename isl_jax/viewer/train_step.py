"""Step 3, Train: the pretext, then the segmentation, in a process that outlives napari."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QLabel, QPushButton, QWidget

from isl_jax.data.store import Dataset, open_dataset
from isl_jax.viewer.chain import planned, start_chain
from isl_jax.viewer.commands import CommandLine, Process, said, stop_user
from isl_jax.viewer.curves import LossCurves
from isl_jax.viewer.dropped import dataset_layers
from isl_jax.viewer.plan_form import PlanForm
from isl_jax.viewer.predicting import first_options, predict_field
from isl_jax.viewer.result_layers import ResultLayers
from isl_jax.viewer.watching import TrainingState, is_newer, look
from isl_jax.viewer.widgets import Step

_LOOK_MS = 1000


class TrainStep(Step):
    """Starts, watches, stops and resumes a training, which is found again through its folder."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.dataset: Dataset | None = None
        self.training: TrainingState | None = None
        self.process: Process | None = None
        self._shown: tuple[str, int | None, str] | None = None
        self._is_predicting = False
        self._begun: list[CommandLine] = []
        self.results = ResultLayers(napari_viewer)
        self.form = PlanForm(self.group("What is trained"))
        form = self.group("Training")
        self.start_button, self.stop_button = QPushButton("Start"), QPushButton("Stop")
        self.start_button.clicked.connect(lambda: self.attempt(self.start))
        self.stop_button.clicked.connect(lambda: self.attempt(self.stop))
        buttons = QWidget()
        row = QHBoxLayout(buttons)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.start_button)
        row.addWidget(self.stop_button)
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.curves = LossCurves()
        self.field = QComboBox()
        self.preview = QCheckBox("show its prediction while it trains")
        for widget in (buttons, self.state, self.curves, self.preview):
            form.addRow(widget)
        form.addRow("field", self.field)
        self.finish_layout()
        self.form.changed.connect(self._plan_changed)
        self.form.data_path.changed.connect(self._data_changed)
        self.form.folder_path.changed.connect(self._folder_changed)
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_MS)
        self._timer.timeout.connect(self.watch)
        self._timer.start()
        self._plan_changed()

    def _data_changed(self) -> None:
        self.dataset = None
        self.field.clear()
        self.say("")
        if self.form.data_path.text:
            self.attempt(self._open_data)
        self._plan_changed()

    def _open_data(self) -> None:
        self.dataset = dataset = open_dataset(self.form.data_path.text)
        self.field.addItems([field.name for field in dataset.fields])
        annotated = self.form.set_data(dataset)
        self.say(f"{len(dataset.fields)} fields, {annotated} annotated ones to train on")

    def _folder_changed(self) -> None:
        """A training that has begun goes on as it was begun, with the settings of its folder."""
        folder = self.folder
        self._begun = (folder and self.attempt(lambda: planned(folder))) or []
        self.form.lock(bool(self._begun))
        if self._begun and (root := self._begun[0].option("config.data.root")):
            self.form.data_path.set(root)
        self._shown = None
        self._plan_changed()

    def _plan_changed(self) -> None:
        self.command.show_text("\n".join(map(str, self.commands)))
        self.watch()

    @property
    def folder(self) -> Path | None:
        """Where it is trained; None while no folder is named."""
        return Path(self.form.folder_path.text) if self.form.folder_path.text else None

    @property
    def commands(self) -> list[CommandLine]:
        """What is started: what was begun in the folder, or what the settings say."""
        scores = self.dataset is None or bool(self.dataset.select("test", labels=True))
        return self._begun or self.form.plan(scores=scores).commands()

    # --- the process ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the commands, or go on with what was stopped."""
        folder = self.folder
        if self.dataset is None or folder is None:
            raise ValueError("choose a prepared data set and a folder for the training first")
        if self._is_running(look(folder)):
            raise ValueError(f"{folder}: a training runs there already; stop it, or choose another")
        self.process = start_chain(folder, self.commands)
        if is_newer(self.dataset.root, folder):
            told = "prepared again since this training began, which goes on as it was"
            self.say(f"{self.dataset.root}: {told}; for what is new choose another folder")
        self._folder_changed()
        self.watch()

    def stop(self) -> None:
        """Ask the training to save a checkpoint and to end."""
        if self.process is not None and self.process.status is None:
            self.process.stop()
        elif self.folder and (training := look(self.folder)).user:
            if not training.user.is_here:
                raise ValueError(f"it runs on {training.user.host}: stop it there")
            for place in (training.folder, *(stage.workdir for stage in training.stages)):
                stop_user(place)
        self.say("stopping: a checkpoint is saved first")

    def _is_running(self, training: TrainingState) -> bool:
        return training.is_running or (self.process is not None and self.process.status is None)

    def watch(self) -> None:
        """Show how far the training in the folder has come."""
        folder = self.folder
        training = self.attempt(lambda: look(folder)) if folder else None
        self.training = training
        running = training is not None and self._is_running(training)
        self.stop_button.setEnabled(running)
        self.start_button.setEnabled(not running)
        if training is None:
            self.state.setText("")
            self.curves.show_stages([])
            return
        begun = training.current.step > 0 or training.is_done
        self.start_button.setText("Go on" if begun and not training.is_done else "Start")
        starting = "starting…" if running and not training.told else ""
        self.state.setText(training.told or starting)
        self.curves.show_stages(training.stages)
        self._tell_end()
        self._predict(training)

    def _tell_end(self) -> None:
        """What a process that was started here said when it failed."""
        process = self.process
        if process is None or process.status is None:
            return
        self.process = None
        lines = said(process.log)
        if process.status == 128 + 15:
            self.say("stopped; the same folder goes on from there")
        elif process.status:
            errors = [line for line in lines if line.startswith("error: ")] or lines[-3:]
            self.say("\n".join(errors), is_error=True)
        else:
            self.say("done: the model can be used in step 4")

    # --- its prediction --------------------------------------------------------------------------

    def _predict(self, training: TrainingState) -> None:
        """Show what the newest checkpoint says of the chosen field."""
        stage, name = training.current, self.field.currentText()
        wanted = (stage.name, stage.checkpoint, name)
        if not (self.preview.isChecked() and name and stage.checkpoint):
            return
        if self._is_predicting or wanted == self._shown:
            return
        self._is_predicting, self._shown = True, wanted

        def show(done: Future) -> None:
            self._is_predicting = False
            self.attempt(lambda: self._show(done, name))

        self.worker.run(lambda: predict_field(stage.workdir, name), show)

    def _show(self, done: Future, name: str) -> None:
        step, found, place = done.result()
        dataset = self.dataset
        if dataset is not None:
            for pixels, shown, kind in dataset_layers(dataset, (dataset.field(name),)):
                if shown["name"] not in self.viewer.layers:
                    add = self.viewer.add_labels if kind == "labels" else self.viewer.add_image
                    add(pixels, **shown | ({"visible": False} if kind == "labels" else {}))
        self.results.show(found, place)
        if not found.info.task.is_stain:
            self.results.show_labels(found.read(first_options(found.info)))
        self.say(f"prediction of {name} after step {step}")
