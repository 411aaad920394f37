"""What a run tells while it trains: a progress line and `metrics.jsonl`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from isl_jax.training import disk


class Writer(Protocol):
    """Takes named values and pictures of a step; `split` is train, validation or run."""

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Record values of a step."""
        ...

    def images(self, step: int, split: str, images: np.ndarray) -> None:
        """Record uint8 pictures `[N, H, W, 1]`."""
        ...

    def close(self) -> None:
        """Finish: everything recorded is on its way."""
        ...


class JsonLines:
    """Appends one JSON object a line to `metrics.jsonl`.

    On resume from `start_step`, lines of later steps are dropped: the steps are about to be run
    again.
    """

    def __init__(self, workdir: Path, *, start_step: int) -> None:
        self._path = workdir / "metrics.jsonl"
        if self._path.exists():
            _drop_after(self._path, start_step)
        self._file = self._path.open("a", buffering=1)

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Write a line at once."""
        with disk.explained(self._path):
            self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")

    def images(self, step: int, split: str, images: np.ndarray) -> None:
        """Pictures have no place here."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _drop_after(path: Path, step: int) -> None:
    kept = []
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a killed run may be cut
        if entry["step"] <= step:
            kept.append(line + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)


class Terminal:
    """A line on stderr with the step, the loss, the pace and the time that is left."""

    def __init__(self, *, start_step: int, num_steps: int, description: str) -> None:
        self._pace = ""
        self._bar = tqdm(
            total=num_steps,
            initial=start_step,
            desc=description,
            unit="step",
            file=sys.stderr,
            # A log file gets a line now and then, a terminal a smooth bar.
            mininterval=0.5 if sys.stderr.isatty() else 15.0,
        )

    def advance(self, step: int, loss: float) -> None:
        """Move to `step`."""
        self._bar.set_postfix_str(f"loss {loss:.4f}{self._pace}", refresh=False)
        self._bar.update(step - self._bar.n)

    def note(self, text: str) -> None:
        """Print a line above."""
        self._bar.write(text, file=sys.stderr)

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Remember the pace."""
        if "images_per_second" in values:
            self._pace = (
                f", {values['images_per_second']:.1f} images/s, data wait {values['data_wait']:.0%}"
            )

    def images(self, step: int, split: str, images: np.ndarray) -> None:
        """Pictures have no place here."""

    def close(self) -> None:
        """Leave the line as it stands."""
        self._bar.close()
