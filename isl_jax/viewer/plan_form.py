"""The settings of a training as a form: what is left empty stays as the configuration has it."""

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QSpinBox, QWidget

from isl_jax.data.store import Dataset
from isl_jax.models.architecture import ENCODERS
from isl_jax.viewer.watching import TrainingPlan
from isl_jax.viewer.widgets import PathEdit

# One for each study, and those that were made for real sets.
_STUDIES = {"cell": "configs/cell.py", "nucleus": "configs/nucleus.py"}
_CONFIGS = (*_STUDIES.values(), "configs/hela.py", "configs/t98g.py", "configs/brightfield.py")
_MOST = 10_000_000


class PlanForm(QObject):
    """Data, folder, configuration, and the few keys of it that a desk needs."""

    changed = Signal()

    def __init__(self, form: QFormLayout) -> None:
        super().__init__(form.parentWidget())
        self.data_path = PathEdit("prepared data set")
        self.folder_path = PathEdit("folder of the training; made, or resumed")
        self.config, self.init, self.encoder = QComboBox(), QComboBox(), QComboBox()
        self.config.addItems(_CONFIGS)
        self.config.setEditable(True)
        self.init.addItems(["imagenet", "random"])
        self.encoder.addItems(["as configured", *ENCODERS])
        self.num_annotated = QSpinBox()
        self.num_annotated.setRange(1, _MOST)
        self.pretrain_steps, self.segment_steps = _number(), _number()
        self.crop_size, self.batch_size = _number(), _number()
        self._settings: list[QWidget] = []
        for label, box in (
            ("configuration", self.config), ("first weights", self.init), ("encoder", self.encoder),
        ):  # fmt: skip
            self._add(form, label, box, box.currentTextChanged)
        for label, number in (
            ("annotated fields", self.num_annotated), ("steps, pretext", self.pretrain_steps),
            ("steps, segmentation", self.segment_steps), ("side of a crop", self.crop_size),
            ("crops in a batch", self.batch_size),
        ):  # fmt: skip
            self._add(form, label, number, number.valueChanged)
        form.insertRow(0, "data", self.data_path)
        form.insertRow(1, "folder", self.folder_path)

    def _add(self, form: QFormLayout, label: str, widget: QWidget, signal: Any) -> None:
        form.addRow(label, widget)
        self._settings.append(widget)
        told: Callable[..., None] = lambda *_: self.changed.emit()  # noqa: E731
        signal.connect(told)

    def set_data(self, dataset: Dataset) -> int:
        """Offer what a data set has: its study, its annotated fields; returns their number."""
        annotated = len(dataset.select("train", labels=True))
        self.num_annotated.setMaximum(max(1, annotated))
        self.num_annotated.setValue(annotated)
        if self.config.currentText() in _STUDIES.values():
            self.config.setCurrentText(_STUDIES[dataset.study])
        return annotated

    def lock(self, locked: bool) -> None:
        """Let nobody change settings of a training that has begun."""
        for widget in (self.data_path, *self._settings):
            widget.setEnabled(not locked)

    def plan(self, *, scores: bool) -> TrainingPlan:
        """What is asked for; `scores`: there are withheld fields to score."""
        encoder = self.encoder.currentText()
        return TrainingPlan(
            self.data_path.text,
            self.folder_path.text,
            config=self.config.currentText(),
            init=self.init.currentText(),
            num_annotated=self.num_annotated.value(),
            pretrain_steps=self.pretrain_steps.value() or None,
            segment_steps=self.segment_steps.value() or None,
            crop_size=self.crop_size.value() or None,
            batch_size=self.batch_size.value() or None,
            encoder=encoder if encoder in ENCODERS else None,
            scores=scores,
        )


def _number() -> QSpinBox:
    box = QSpinBox()
    box.setRange(0, _MOST)
    box.setSpecialValueText("as configured")
    return box
