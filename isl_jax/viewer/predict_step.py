"""Step 4, Predict: images to labels by a trained model, tuned by eye, corrected, saved."""

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QComboBox, QLabel, QPushButton

from isl_jax.inference.folder import read_records
from isl_jax.inference.info import ModelInfo, PostProcessing, read_info
from isl_jax.inference.large import Scratch
from isl_jax.inference.model import Model, Prediction
from isl_jax.inference.stored import model_folder
from isl_jax.viewer import predicting
from isl_jax.viewer.annotating import hand_over
from isl_jax.viewer.layers import Place
from isl_jax.viewer.output_choice import OutputChoice
from isl_jax.viewer.predicting import Predicted, Request
from isl_jax.viewer.result_layers import ResultLayers
from isl_jax.viewer.selection import selected
from isl_jax.viewer.sliders import Sliders
from isl_jax.viewer.widgets import PathEdit, Running, Step

# Labels are made when a slider has rested so long.
_REST_MS = 30
_SELECTED = "the selected layers"


class PredictStep(Step):
    """Model + selected layers or files → labels, probability and distance, as layers and files."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.info: ModelInfo | None = None
        self.found: Predicted | None = None
        self.prediction: Prediction | None = None
        self.results = ResultLayers(napari_viewer)
        self._model: Model | None = None
        self._sources: dict[str, Any] = {}
        self._reading: PostProcessing | None = None
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)
        self._rest.timeout.connect(self.relabel)
        self.running = Running(self, self._progress)

        form = self.group("Model and images")
        self.model_path = PathEdit("model folder, or the workdir of a run")
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.images_path = PathEdit("empty: the selected layers", files=True)
        self.choice = QComboBox()
        self.choice.addItem(_SELECTED)
        self.predict_button = self._button("Predict", self.predict)
        for label, widget in (
            ("model", self.model_path), ("", self.about), ("files", self.images_path),
            ("image", self.choice), ("", self.predict_button),
        ):  # fmt: skip
            form.addRow(label, widget)
        self.sliders = Sliders(self.group("How the maps are read"))
        self.count = QLabel()
        self.sliders.form.addRow(self.count)
        form = self.group("Save")
        self.outputs = OutputChoice()
        self.out_path = PathEdit("folder of the outputs")
        self.save_button = self._button("Save this image", self.save)
        self.hand_button = self._button("Correct in step 2, Annotate", self.hand_over)
        self.all_button = self._button("Predict and save all files", self.predict_all)
        form.addRow(self.outputs)
        form.addRow("into", self.out_path)
        form.addRow(self.save_button)
        form.addRow(self.hand_button)
        form.addRow(self.all_button)
        self.finish_layout()

        self.model_path.changed.connect(self._model_changed)
        self.images_path.changed.connect(self._images_changed)
        self.sliders.changed.connect(self._slider_moved)
        self.outputs.changed.connect(self._tell_command)
        self.out_path.changed.connect(self._tell_command)
        self._tell_command()

    def _button(self, text: str, action: Callable[[], None]) -> QPushButton:
        button = QPushButton(text)
        button.clicked.connect(lambda: self.attempt(action))
        return button

    # --- the model and the images ------------------------------------------------------------

    def _model_changed(self) -> None:
        self.info = self._model = None
        self.about.setText("")
        self.say("")
        if self.model_path.text:
            self.attempt(self._read_model)
        self._images_changed()

    def _read_model(self) -> None:
        info = read_info(model_folder(self.model_path.text) / "model.json")
        self.info = info
        told = f"{info.study} study: {info.stain or 'labels'} from {', '.join(info.channels)}"
        blocks = f"; blocks of {info.binning} × {info.binning} pixels" if info.binning > 1 else ""
        self.about.setText(told + blocks)
        self.sliders.set_model(info)
        self.outputs.set_model(info)

    def _images_changed(self) -> None:
        self._sources = {}
        self.choice.clear()
        if self.info is not None and self.images_path.text:
            self.attempt(self._find_images)
        if not self._sources:
            self.choice.addItem(_SELECTED)
        self._tell_command()

    def _find_images(self) -> None:
        assert self.info is not None
        found = predicting.find_images(self.images_path.text, self.info)
        self._sources = {source.name: source for source in found.images}
        self.choice.addItems(list(self._sources))
        self.say(f"{len(self._sources)} images")

    # --- maps ----------------------------------------------------------------------------------

    def predict(self) -> None:
        """Send the chosen image through the network, and show what comes of it."""
        info, path = self.info, self.model_path.text
        if info is None:
            raise ValueError("choose a model first: a model folder, or the workdir of a run")
        source = self._sources.get(self.choice.currentText())
        if source is None:
            selection = selected(self.viewer, info.channels)
            image = predicting.opened(selection.images, info, selection.spacing)
            opened, place = (lambda: image), selection.place
        else:
            opened, place = (lambda: source.open(Scratch(), binning=info.binning)), None

        def work() -> Predicted:
            self._model = self._model or predicting.load(path)
            return predicting.predict(self._model, opened())

        self.predict_button.setEnabled(False)
        self.run(work, lambda found: self._show(found, place), told="predicting…")

    def _ended(self, done: Future, then: Callable[[Any], None]) -> None:
        self.predict_button.setEnabled(True)
        super()._ended(done, then)

    def _show(self, found: Predicted, place: Place | None) -> None:
        self.found, self.prediction = found, None
        self.results.show(found, place)
        self._tell_command()
        if not found.info.task.is_stain:
            self.relabel()

    # --- labels --------------------------------------------------------------------------------

    def _slider_moved(self) -> None:
        self._tell_command()
        if self.found is not None and not self.found.info.task.is_stain:
            self._rest.start()

    def relabel(self) -> None:
        """Labels of the stored maps by the sliders, in the background; the newest wish counts."""
        if self.found is None or self._reading is not None:
            return
        found, options = self.found, self.sliders.options
        self._reading = options
        started = time.perf_counter()

        def show(done: Future) -> None:
            self._reading = None
            prediction = self.attempt(done.result)
            if prediction is not None and found is self.found:
                self._show_labels(prediction, time.perf_counter() - started)
            if self.found is not None and self.sliders.options != options:
                self.relabel()

        self.worker.run(lambda: found.read(options), show)

    def _show_labels(self, prediction: Prediction, seconds: float) -> None:
        assert prediction.labels is not None
        self.prediction = prediction
        self.results.show_labels(prediction)
        number = int(prediction.labels.max(initial=0))
        self.count.setText(f"{number} objects, read in {1000 * seconds:.0f} ms")

    # --- files ---------------------------------------------------------------------------------

    @property
    def request(self) -> Request:
        """What isl-predict would be asked for."""
        images = self.images_path.text
        if not images and self.found is not None:
            images = ",".join(map(str, self.found.image.paths))
        out, outputs = self.out_path.text, self.outputs.names
        return Request(self.model_path.text, images, out, outputs, self.sliders.options)

    def _tell_command(self) -> None:
        self.command.show_text(str(self.request.command(self.info)))

    def save(self) -> None:
        """Write the outputs of the image that is shown, its labels as they stand."""
        found, prediction = self.found, self.prediction
        if found is None:
            raise ValueError("predict an image first")
        corrected = self.results.is_corrected
        prediction = prediction or found.read(self.sliders.options)
        prediction = dataclasses.replace(prediction, labels=self.results.labels)
        request = self.request
        self.run(
            lambda: request.save(found, prediction, corrected=corrected),
            lambda record: self.say(f"{request.out}: {', '.join(record.files)}"),
            told="saving…",
        )

    def hand_over(self) -> None:
        """Keep the labels, as they stand, beside the image, where step 2 goes on from them."""
        found, labels = self.found, self.results.labels
        if found is None or labels is None:
            raise ValueError("predict an image first")
        path = hand_over(found.image.paths, labels, found.image.binning)
        self.say(f"{path}: open its folder in step 2")

    def predict_all(self) -> None:
        """Start isl-predict on all files, as the command line says, in a process of its own."""
        request = self.request
        if self.info is None or not self._sources or not request.out:
            raise ValueError("choose a model, files and the folder to save into first")
        self.running.start(request.command(self.info))

    def _progress(self) -> tuple[int, int]:
        """Images that are done, and all."""
        done = {record.name for record in read_records(Path(self.out_path.text))}
        return len(done & self._sources.keys()), len(self._sources)
