"""Files that appear whole or not at all, whatever happens while they are written."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; what is there at the end takes the name `path`.

    Files and folders. After an error nothing is left of the draft, and `path` is as it was.
    """
    # The suffix stays: writers choose their format by it. The dot hides the draft from patterns.
    draft = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield draft
        if path.is_dir():
            shutil.rmtree(path)
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(draft) if draft.is_dir() else draft.unlink(missing_ok=True)
        raise
