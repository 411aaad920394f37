"""What the steps are built of: work in the background, paths to choose, commands to copy."""

import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtGui import QFontDatabase, QGuiApplication
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from isl_jax.viewer.commands import CommandLine, Process, said, start

# What bad input raises on purpose, with a message for the user (`launch/command.py`).
INPUT_ERRORS = (ValueError, OSError, LookupError, FloatingPointError, MemoryError)
_WATCH_MS = 500


class Worker(QObject):
    """One thread beside napari's: work goes there, what comes of it returns to the main thread."""

    _ended = Signal(object, object)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="isl")
        self.num_pending = 0
        self._ended.connect(self._deliver)

    def run(self, work: Callable[[], Any], then: Callable[[Future], None]) -> None:
        """Call `work` in the thread, and `then` with its future in the main one."""
        self.num_pending += 1
        future = self._pool.submit(work)
        future.add_done_callback(lambda done: self._ended.emit(then, done))

    def _deliver(self, then: Callable[[Future], None], done: Future) -> None:
        self.num_pending -= 1
        then(done)


class PathEdit(QWidget):
    """A path to type or to choose: a folder, or with `files` also a file."""

    changed = Signal(str)

    def __init__(self, what: str, *, files: bool = False) -> None:
        super().__init__()
        self._what = what
        self.line = QLineEdit()
        self.line.setPlaceholderText(what)
        self.line.textChanged.connect(self.changed)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.line)
        for label, choose in (("Folder…", self._folder), ("File…", self._file))[: 1 + files]:
            button = QPushButton(label)
            button.clicked.connect(choose)
            layout.addWidget(button)

    @property
    def text(self) -> str:
        """What is written there."""
        return self.line.text().strip()

    def set(self, path: Path | str) -> None:
        """Put a path there."""
        self.line.setText(str(path))

    def _folder(self) -> None:
        if found := QFileDialog.getExistingDirectory(self, self._what, self.text):
            self.set(found)

    def _file(self) -> None:
        found, _ = QFileDialog.getOpenFileName(self, self._what, self.text)
        if found:
            self.set(found)


class CommandBox(QWidget):
    """The command that a step stands for, to be copied into a terminal or a script."""

    def __init__(self) -> None:
        super().__init__()
        self._text = QPlainTextEdit()
        self._text.setReadOnly(True)
        self._text.setFixedHeight(64)
        self._text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        copy = QPushButton("Copy")
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.text))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._text)
        layout.addWidget(copy)

    @property
    def text(self) -> str:
        """The command line."""
        return self._text.toPlainText()

    def show_text(self, text: str) -> None:
        """Show another one, or several, each in a line."""
        if self.text != text:
            self._text.setPlainText(text)


class Step(QScrollArea):
    """A docked step: groups one below the other, what it says, and the command that it is."""

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self.worker = Worker(self)
        inside = QWidget()
        self._groups = QVBoxLayout(inside)
        self._groups.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.setWidget(inside)
        self.setWidgetResizable(True)
        self.bar = QProgressBar()
        self.bar.setVisible(False)
        self.told = QLabel()
        self.told.setWordWrap(True)
        self.told.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.command = CommandBox()

    def group(self, title: str) -> QFormLayout:
        """A titled group of rows."""
        box = QGroupBox(title)
        form = QFormLayout(box)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._groups.addWidget(box)
        return form

    def finish_layout(self) -> None:
        """Below all groups: progress, words, the command."""
        self._groups.addWidget(self.bar)
        self._groups.addWidget(self.told)
        self._groups.addWidget(QLabel("The same in a terminal:"))
        self._groups.addWidget(self.command)

    def say(self, text: str, *, is_error: bool = False) -> None:
        """Tell the user something."""
        self.told.setStyleSheet("color: #ff6b6b" if is_error else "")
        self.told.setText(text)

    def fail(self, error: BaseException) -> None:
        """Tell of an error: of bad input in its own words, of others with their kind."""
        text = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
        if not isinstance(error, INPUT_ERRORS):
            traceback.print_exception(error)
            text = f"{type(error).__name__}: {text}"
        self.say(" ".join(text.split()), is_error=True)

    def run(
        self, work: Callable[[], Any], then: Callable[[Any], None], *, told: str = "working…"
    ) -> None:
        """Do `work` in the background, `then` take its result; errors are told."""
        self.say(told)
        self.bar.setRange(0, 0)
        self.bar.setVisible(True)
        self.worker.run(work, lambda done: self._ended(done, then))

    def _ended(self, done: Future, then: Callable[[Any], None]) -> None:
        self.bar.setVisible(self.worker.num_pending > 0)
        self.say("")
        self.attempt(lambda: then(done.result()))

    def attempt(self, work: Callable[[], Any]) -> Any:
        """Call `work` now; errors are told, and None is returned."""
        try:
            return work()
        except Exception as error:
            self.fail(error)
            return None


class Running(QObject):
    """A started command under the eyes of a step: its words, its progress, its end."""

    ended = Signal(int)

    def __init__(self, step: Step, progress: Callable[[], tuple[int, int]]) -> None:
        super().__init__(step)
        self._step, self._progress = step, progress
        self.process: Process | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(_WATCH_MS)
        self._timer.timeout.connect(self.look)

    def start(self, command: CommandLine) -> None:
        """Start a command; ValueError while the one before still runs."""
        if self.process is not None and self.process.status is None:
            raise ValueError("the command before still runs; wait until it has ended")
        self.process = start(command)
        self._step.bar.setVisible(True)
        self._timer.start()
        self.look()

    def look(self) -> None:
        """Show how far it is."""
        if self.process is None:
            return
        status, lines = self.process.status, said(self.process.log)
        done, total = self._progress()
        self._step.bar.setRange(0, total)
        self._step.bar.setValue(done)
        self._step.say("\n".join(lines[-6:]) or "starting…")
        if status is not None:
            self._timer.stop()
            self._step.bar.setVisible(False)
            if status:
                errors = [line for line in lines if line.startswith("error: ")] or lines[-3:]
                self._step.say("\n".join(errors), is_error=True)
            self.ended.emit(status)
