"""Functions compiled by numba, whose machine code is kept between runs where there is room for it.

Numba refuses to import a function with a cache that it cannot write: a read-only installation whose
user has no home. Such functions are compiled anew in each run, which is slower and no more.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: `numba.njit` with `options`, without the interpreter's lock, cached if it can."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            dispatcher = njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # no folder to keep it in
            return njit(nogil=True, **options)(function)
        _forgive_full_disk(dispatcher)
        return dispatcher

    return decorate


def _forgive_full_disk(dispatcher: Any) -> None:
    """What cannot be kept, or was kept damaged, is compiled anew."""
    cache: Any = getattr(dispatcher, "_cache", None)
    save, load = getattr(cache, "save_overload", None), getattr(cache, "load_overload", None)
    if save is None or load is None:  # another numba
        return

    def careful_save(*arguments: Any) -> None:
        with contextlib.suppress(OSError):
            save(*arguments)

    def careful_load(*arguments: Any) -> Any:
        try:
            return load(*arguments)
        except Exception:  # of pickles cut short
            return None

    cache.save_overload, cache.load_overload = careful_save, careful_load
