"""Step 1, Images: what is found in a folder, what is wrong with it, and a prepared data set."""

from collections.abc import Callable
from typing import Any

from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import QComboBox, QLineEdit, QPlainTextEdit, QPushButton, QSpinBox

from isl_jax.ingest.presets import PRESETS
from isl_jax.task import STUDIES
from isl_jax.viewer.commands import CommandLine, command_line
from isl_jax.viewer.widgets import PathEdit, Running, Step

_AS_LAYOUT = "as the layout says"


class ImagesStep(Step):
    """Looks at a raw folder as isl-prepare --dry_run does, and prepares it, in a process."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.running = Running(self, lambda: (0, 0))
        self.running.ended.connect(self._ended_with)
        self._is_look = True
        form = self.group("Images")
        self.source_path = PathEdit("folder with the raw files")
        self.layout_choice = QComboBox()
        self.layout_choice.addItems(["folder", *(name for name in PRESETS if name != "folder")])
        self.layout_choice.setEditable(True)
        self.study = QComboBox()
        self.study.addItems([_AS_LAYOUT, *STUDIES])
        self.inputs, self.stain, self.labels = QLineEdit(), QLineEdit(), QLineEdit()
        self.inputs.setPlaceholderText("channels in network order: phase, or bf[1,2],pc:max")
        self.stain.setPlaceholderText("channel of the stain; empty: as the layout says")
        self.labels.setPlaceholderText("channel of masks; empty: as the layout says")
        self.more = QLineEdit()
        self.more.setPlaceholderText("--test=0.3 --ignore=65535 …")
        self.bin = QSpinBox()
        self.bin.setRange(1, 64)
        self.out_path = PathEdit("folder of the prepared data set, a new one")
        for label, widget in (
            ("folder", self.source_path), ("layout", self.layout_choice), ("study", self.study),
            ("inputs", self.inputs), ("stain", self.stain), ("labels", self.labels),
            ("pixels binned", self.bin), ("more options", self.more),
            ("", self._button("Look (dry run)", self.look)), ("into", self.out_path),
            ("", self._button("Prepare", self.prepare)),
        ):  # fmt: skip
            form.addRow(label, widget)
        self.table = QPlainTextEdit()
        self.table.setReadOnly(True)
        self.table.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.table.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.table.setMinimumHeight(180)
        self.group("What was found").addRow(self.table)
        self.finish_layout()
        for path in (self.source_path, self.out_path):
            path.changed.connect(lambda _: self._tell_command())
        for line in (self.inputs, self.stain, self.labels, self.more):
            line.textChanged.connect(lambda _: self._tell_command())
        for box in (self.layout_choice, self.study):
            box.currentTextChanged.connect(lambda _: self._tell_command())
        self.bin.valueChanged.connect(lambda _: self._tell_command())
        self._tell_command()

    def _button(self, text: str, action: Callable[[], None]) -> QPushButton:
        button = QPushButton(text)
        button.clicked.connect(lambda: self.attempt(action))
        return button

    def request(self, *, look: bool) -> CommandLine:
        """The command that looks, or the one that prepares."""
        study = self.study.currentText()
        given = {
            "source": self.source_path.text or "RAW",
            "layout": self.layout_choice.currentText(),
            "inputs": self.inputs.text().strip() or None,
            "stain": self.stain.text().strip() or None,
            "labels": self.labels.text().strip() or None,
            "study": None if study == _AS_LAYOUT else study,
            "bin": self.bin.value() if self.bin.value() > 1 else None,
            "out": None if look else self.out_path.text or "DATA",
        }
        found = command_line("prepare", given)
        more = (*self.more.text().split(), *(["--dry_run"] if look else []))
        return CommandLine(found.name, (*found.options, *more))

    def _tell_command(self) -> None:
        self.command.show_text(str(self.request(look=False)))

    def look(self) -> None:
        """Start the dry run: a table of what is there, and every fault."""
        self._start(look=True)

    def prepare(self) -> None:
        """Start the command."""
        if not self.out_path.text:
            raise ValueError("choose the folder to write")
        self._start(look=False)

    def _start(self, *, look: bool) -> None:
        if not self.source_path.text:
            raise ValueError("choose the folder with the raw files")
        self._is_look = look
        self.running.start(self.request(look=look))

    def _ended_with(self, status: int) -> None:
        assert self.running.process is not None
        log = self.running.process.log
        lines = log.read_text("utf-8", "replace").replace("\r", "\n").splitlines()
        told = [line.removeprefix("fault: ") for line in lines if line.startswith("fault: ")]
        self.table.setPlainText("\n".join(lines))
        if told:
            self.say("\n".join(told), is_error=True)
        elif not status and self._is_look:
            self.say("no faults: it can be prepared")
        elif not status:
            self.say(lines[-1] if lines else "prepared")
