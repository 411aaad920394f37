"""Step 2, Annotate: field after field, image, stain and draft, and labels to draw in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QComboBox, QLabel, QLineEdit, QPushButton

from isl_jax.viewer.annotating import IGNORE, MASKS, Annotation, ToAnnotate
from isl_jax.viewer.layers import contrast
from isl_jax.viewer.widgets import PathEdit, Step

# What was drawn is kept so often.
_KEEP_MS = 10_000


class AnnotateStep(Step):
    """Masks are saved on every "next", and what is not finished now and then, beside the images."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.annotation: Annotation | None = None
        self.fields: tuple[ToAnnotate, ...] = ()
        self.current: ToAnnotate | None = None
        self._layers: list[Any] = []
        self._labels: Any = None
        self._kept: np.ndarray | None = None

        form = self.group("What is annotated")
        self.folder_path = PathEdit("folder of <field>_<channel> images")
        self.image, self.stain = QLineEdit("image"), QLineEdit("stain")
        self.draft = QLineEdit("draft")
        for label, widget in (
            ("folder", self.folder_path), ("inputs", self.image), ("stain", self.stain),
            ("drafts", self.draft), ("", self._button("Open", self.open)),
        ):  # fmt: skip
            form.addRow(label, widget)
        form = self.group("Annotation")
        self.choice, self.count = QComboBox(), QLabel()
        self.count.setWordWrap(True)
        self.next_button = self._button("Save and next", self.save_and_next)
        self.new_button = self._button("Next free number", self.take_next_number)
        self.ignore_button = self._button("Ignored region (65535)", self.take_ignore)
        form.addRow("field", self.choice)
        for widget in (self.count, self.new_button, self.ignore_button, self.next_button):
            form.addRow(widget)
        self.out_path = PathEdit("data set that is prepared with the masks")
        form.addRow("then into", self.out_path)
        self.finish_layout()
        self.choice.activated.connect(lambda index: self.attempt(lambda: self.show_field(index)))
        self.out_path.changed.connect(lambda _: self._tell_command())
        self.timer = QTimer(self)
        self.timer.setInterval(_KEEP_MS)
        self.timer.timeout.connect(lambda: self.attempt(self.keep))
        self.timer.start()

    def _button(self, text: str, action: Callable[[], None]) -> QPushButton:
        button = QPushButton(text)
        button.clicked.connect(lambda: self.attempt(action))
        return button

    def open(self) -> None:
        """Find the fields of the folder, and show the first that is not annotated."""
        self.keep()
        if not self.folder_path.text:
            raise ValueError("choose the folder with the images")
        words = (box.text().strip() for box in (self.image, self.stain, self.draft))
        annotation = Annotation(Path(self.folder_path.text), *words)
        self.fields, self.annotation = annotation.fields(), annotation
        self.current = None
        self._tell_fields()
        self._tell_command()
        first = [k for k, field in enumerate(self.fields) if not field.is_done]
        self.show_field(first[0] if first else 0)

    def _tell_command(self) -> None:
        if self.annotation is not None:
            self.command.show_text(str(self.annotation.command(self.out_path.text)))

    def _tell_fields(self) -> None:
        index = self.fields.index(self.current) if self.current else 0
        self.choice.clear()
        self.choice.addItems([f"{'✓' if f.is_done else '–'} {f.name}" for f in self.fields])
        self.choice.setCurrentIndex(index)
        done = sum(field.is_done for field in self.fields)
        self.count.setText(f"{done} of {len(self.fields)} fields annotated")

    def show_field(self, index: int) -> None:
        """Show a field; what was drawn in the one before is kept."""
        self.keep()
        assert self.annotation is not None
        field = self.fields[index]
        planes = self.annotation.planes(field)
        shape = next(iter(planes.values())).shape
        labels, from_ = self.annotation.labels(field, shape)
        for layer in self._layers:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        where, self._layers = field.place.shown(), []
        for number, (name, plane) in enumerate(planes.items()):
            is_stain = name.endswith("(stain)")
            shown = {"colormap": "cyan", "blending": "additive"} if is_stain else {}
            visible = number == 0 or is_stain
            layer = self.viewer.add_image(
                plane, name=f"{field.name} {name}", visible=visible,
                contrast_limits=contrast(plane), **shown, **where,
            )  # fmt: skip
            self._layers.append(layer)
        self._labels = self.viewer.add_labels(
            labels, name=f"{field.name} {MASKS}", opacity=0.5, **where
        )
        self._layers.append(self._labels)
        self.viewer.layers.selection.active = self._labels
        self.current, self._kept = field, labels.copy()
        self.choice.setCurrentIndex(index)
        self.say(f"{field.name}: begins with {from_}")

    def _drawn(self) -> np.ndarray | None:
        return None if self._labels is None else np.asarray(self._labels.data, np.int32)

    def keep(self) -> None:
        """Keep what has been drawn since it was kept last."""
        drawn = self._drawn()
        if self.current is None or drawn is None or self._kept is None:
            return
        if np.array_equal(drawn, self._kept):
            return
        assert self.annotation is not None
        path = self.annotation.keep(self.current, drawn)
        self._kept = drawn.copy()
        self.say(f"kept as {path.name}")

    def save_and_next(self) -> None:
        """Save the masks of the field, and show the next one without."""
        drawn = self._drawn()
        if self.annotation is None or self.current is None or drawn is None:
            raise ValueError("open a folder first")
        if self._labels not in self.viewer.layers:
            raise ValueError("the labels have been removed from the layer list; choose the field")
        path = self.annotation.finish(self.current, drawn)
        self._kept = drawn.copy()
        self._tell_fields()
        here = self.fields.index(self.current)
        order = [*range(here + 1, len(self.fields)), *range(here)]
        left = [index for index in order if not self.fields[index].is_done]
        if left:
            self.show_field(left[0])
        self.say(f"{path.name} is saved" + ("" if left else "; all fields are annotated"))

    def take_next_number(self) -> None:
        """Draw with a number that no object has."""
        labels = self._drawn()
        if labels is not None:
            self._labels.selected_label = int(labels[labels != IGNORE].max(initial=0)) + 1
            self._labels.mode = "paint"

    def take_ignore(self) -> None:
        """Draw what is neither cell nor background: a training takes no notice of it."""
        if self._labels is not None:
            self._labels.selected_label = IGNORE
            self._labels.mode = "paint"
