"""Boxes to tick for what isl-predict writes."""

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QWidget

from isl_jax.inference.info import ModelInfo
from isl_jax.outputs.catalogue import OUTPUTS

_COLUMNS = 3
_TOLD = {
    "labels": "label image, TIFF",
    "stain": "predicted stain, TIFF",
    "maps": "probability and distance, TIFF",
    "zarr": "OME-Zarr, the image with the labels inside",
    "rois": "ROI set for ImageJ",
    "geojson": "regions for QuPath",
    "table": "CSV, a row an object",
    "overlay": "picture of what was found",
}


class OutputChoice(QWidget):
    """A box for every output; those that a model does not give cannot be ticked."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        self.boxes = {name: QCheckBox(name) for name in OUTPUTS}
        for number, (name, box) in enumerate(self.boxes.items()):
            box.setToolTip(_TOLD.get(name, ""))
            box.toggled.connect(self.changed)
            grid.addWidget(box, number // _COLUMNS, number % _COLUMNS)
        self.boxes["labels"].setChecked(True)

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are ticked."""
        return tuple(name for name, box in self.boxes.items() if box.isChecked())

    def set_model(self, info: ModelInfo) -> None:
        """Offer what a model gives; at least its labels, or its stain."""
        for name, box in self.boxes.items():
            is_given = info.task.is_stain in OUTPUTS[name].of_stain
            box.setEnabled(is_given)
            box.setChecked(box.isChecked() and is_given)
        if not self.names:
            self.boxes["stain" if info.task.is_stain else "labels"].setChecked(True)
