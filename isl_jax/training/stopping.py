"""When a training ends before its last step: told to, or no longer learning."""

import dataclasses
import signal
import threading
from typing import Any


class InterruptedTrainingError(RuntimeError):
    """The run was told to stop (SIGTERM, SIGINT) and has saved a checkpoint to resume from."""


class StopRequest:
    """Turns SIGTERM and SIGINT into a flag while the loop runs (main thread only)."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: object) -> None:
        self.requested = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


@dataclasses.dataclass
class BestScore:
    """The lowest validation loss so far, and how many looks ago that was.

    `patience` looks in a row without a lower loss, those before step `patience_from` not counted,
    make `exhausted` true; 0 never does.
    """

    patience: int = 0
    patience_from: int = 0
    loss: float | None = None
    step: int = 0
    misses: int = 0

    def __str__(self) -> str:
        return (
            f"{self.misses} validations in a row found no loss below {self.loss:.4g}, that of step "
            f"{self.step}"
        )

    def update(self, step: int, loss: float) -> bool:
        """Take note of a validation; returns whether it is the best so far."""
        if self.loss is None or loss < self.loss:
            self.loss, self.step, self.misses = loss, step, 0
            return True
        self.misses += step >= self.patience_from
        return False

    @property
    def exhausted(self) -> bool:
        """Whether the run has stopped learning."""
        return 0 < self.patience <= self.misses

    def get_state(self) -> dict[str, Any]:
        """JSON-like, for a checkpoint."""
        return {"loss": self.loss, "step": self.step, "misses": self.misses}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.loss, self.step, self.misses = state["loss"], state["step"], state["misses"]
