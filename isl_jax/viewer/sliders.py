"""Sliders of how maps become labels: the options of `PostProcessing`, one row each."""

import dataclasses

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QPushButton
from superqt import QLabeledDoubleSlider, QLabeledSlider

from isl_jax.inference.info import ModelInfo, PostProcessing
from isl_jax.viewer.predicting import first_options, highest_h

_MOST_SIGMA = 6.0
_MOST_PIXELS = 2000


class Sliders(QObject):
    """Sliders for h, sigma, threshold and smallest size, at first at the model's own values."""

    changed = Signal()

    def __init__(self, form: QFormLayout) -> None:
        super().__init__(form.parentWidget())
        self.form = form
        self._first = PostProcessing()
        self.h = _slider(0.0, 255.0, "Contrast of a marker: higher joins objects, lower splits")
        self.sigma = _slider(0.0, _MOST_SIGMA, "Gaussian that smooths the distance map, pixels")
        self.threshold = _slider(0.01, 0.99, "Probability above which a pixel is foreground")
        self.min_size = QLabeledSlider(Qt.Orientation.Horizontal)
        self.min_size.setRange(0, _MOST_PIXELS)
        self.min_size.setToolTip("Objects of fewer pixels are dropped")
        self.fill_holes = QCheckBox("fill holes")
        self.keep_unmarked = QCheckBox("keep foreground without a marker")
        self.reset = QPushButton("As the model says")
        self.reset.clicked.connect(lambda: self.set(self._first))
        names = {"h": "h", "sigma": "sigma", "threshold": "threshold", "min_size": "smallest size"}
        for name, label in names.items():
            form.addRow(label, getattr(self, name))
            getattr(self, name).valueChanged.connect(self.changed)
        for box in (self.fill_holes, self.keep_unmarked):
            form.addRow(box)
            box.toggled.connect(self.changed)
        form.addRow(self.reset)

    @property
    def options(self) -> PostProcessing:
        """What the sliders say; a value that was not moved is the model's, digit for digit."""
        now = {
            "h": float(self.h.value()) if self.h.isEnabled() else None,
            "sigma": float(self.sigma.value()),
            "threshold": float(self.threshold.value()),
            "min_size": int(self.min_size.value()),
            "fill_holes": self.fill_holes.isChecked(),
            "keep_unmarked": self.keep_unmarked.isChecked(),
        }
        first = dataclasses.asdict(self._first)
        near = {n for n, v in now.items() if _is_near(v, first[n])}
        return PostProcessing(**{n: first[n] if n in near else v for n, v in now.items()})

    def set_model(self, info: ModelInfo) -> None:
        """Go to the values of a model, and let those be moved that it knows."""
        self._first = first_options(info)
        cells = info.task.has_distance
        for widget in (self.h, self.sigma, self.keep_unmarked):
            widget.setEnabled(cells)
        for widget in (self.threshold, self.min_size, self.fill_holes):
            widget.setEnabled(not info.task.is_stain)
        self.h.setRange(0.0, max(highest_h(info), self._first.h or 0.0))
        self.sigma.setRange(0.0, max(_MOST_SIGMA, self._first.sigma))
        self.min_size.setRange(0, max(_MOST_PIXELS, 2 * self._first.min_size))
        self.set(self._first)

    def set(self, options: PostProcessing) -> None:
        """Put the sliders where `options` are."""
        self.h.setValue(options.h or 0.0)
        self.sigma.setValue(options.sigma)
        self.threshold.setValue(options.threshold)
        self.min_size.setValue(options.min_size)
        self.fill_holes.setChecked(options.fill_holes)
        self.keep_unmarked.setChecked(options.keep_unmarked)


def _slider(low: float, high: float, told: str) -> QLabeledDoubleSlider:
    slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
    slider.setRange(low, high)
    slider.setToolTip(told)
    return slider


def _is_near(value: float | None, first: float | None) -> bool:
    # Sliders round to two digits.
    return value == first or (value is not None and first is not None and abs(value - first) < 6e-3)
