"""A trace of a few steps, for XProf or TensorBoard's profile plugin."""

from pathlib import Path

import jax


class Profiler:
    """Traces the steps `first` to `last` of `steps` into `folder`; without steps, nothing."""

    def __init__(self, folder: Path, steps: tuple[int, int] | None) -> None:
        self._folder, self._steps, self._is_running = folder, steps, False

    def starts(self, step: int) -> bool:
        """Whether the trace begins with `step`, the next one."""
        if self._steps is None or self._is_running:
            return False
        return self._steps[0] <= step <= self._steps[1]

    def ends(self, step: int) -> bool:
        """Whether the trace ends after `step`, the last one."""
        return self._steps is not None and self._is_running and step >= self._steps[1]

    def start(self) -> None:
        """Begin; the device should have nothing left to do."""
        jax.profiler.start_trace(str(self._folder))
        self._is_running = True

    def close(self) -> None:
        """End, if begun."""
        if self._is_running:
            jax.profiler.stop_trace()
            self._steps, self._is_running = None, False
