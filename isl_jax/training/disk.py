"""Errors of a disk that is full or gone, told so that the user knows what is left."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Around writing `path`: OSErrors name it and say how to go on."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: could not be written ({error.strerror or error}); what was there before "
            "stays: make room, then the same command goes on from the last checkpoint"
        ) from error
