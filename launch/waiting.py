"""How far a long command has come: a bar in a terminal, elsewhere a line now and then."""

import sys
import time
from typing import Self

from tqdm import tqdm

# Seconds between two lines in a log file.
_EVERY = 60.0


class Waiting:
    """`with Waiting("prepare", 100, "field") as bar`, and `bar.update()` after each."""

    def __init__(self, name: str, total: int, unit: str = "field", *, scaled: bool = False):
        self._name, self._total, self._unit, self._scaled = name, total, unit, scaled
        self._done, self._started = 0, time.monotonic()
        self._told = self._started
        self._bar = tqdm(desc=name, total=total, unit=unit, unit_scale=scaled, disable=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, number: int = 1) -> None:
        """So many more are done."""
        self._done += number
        self._bar.update(number)
        now = time.monotonic()
        if self._bar.disable and now - self._told >= _EVERY:
            self._told = now
            print(
                f"{self._name}: {self._number(self._done)} of {self._number(self._total)} "
                f"{self._unit}{'' if self._scaled else 's'}, {(now - self._started) / 60:.0f} min",
                file=sys.stderr,
                flush=True,
            )

    def _number(self, count: int) -> str:
        return tqdm.format_sizeof(count) if self._scaled else str(count)
