"""Many images, one after the other through the network, while others are read and written."""

import dataclasses
import errno
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.inference.model import Model
from isl_jax.inference.scratch import Scratch
from isl_jax.inference.sources import OpenedImage, Source
from isl_jax.inference.standardised import StandardisedImage
from isl_jax.inference.tiling import HALO, TILE, padded, plan

STAGES = ("read", "network", "label", "write")
# Pixels that wait, read, for the network: two fields of 2160 × 2160, or many small ones.
_PIXELS_AHEAD = 1 << 24
_INPUT_ERRORS = (ValueError, OSError, LookupError, MemoryError, RuntimeError)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Outcome:
    """What became of an image: the record of its outputs, or why there are none."""

    name: str
    record: dict[str, Any] | None = None
    error: Exception | None = None

    @property
    def is_disk_full(self) -> bool:
        """Whether it failed for want of space, as the next ones would."""
        return isinstance(self.error, OSError) and self.error.errno in _NO_SPACE


@dataclass
class Stopwatch:
    """Seconds of work in each stage, over all threads."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def add(self, stage: str, since: float) -> None:
        """Count the time since `since` (`time.perf_counter`)."""
        self.seconds[stage] += time.perf_counter() - since

    def shares(self) -> str:
        """`read 3 %, network 90 %, …` of all work."""
        total = sum(self.seconds.values()) or 1.0
        return ", ".join(f"{stage} {100 * s / total:.0f} %" for stage, s in self.seconds.items())


@dataclass(frozen=True)
class _Read:
    image: OpenedImage
    prepared: StandardisedImage
    scratch: Scratch


# Labels and writes one image, given its maps; returns the record of what it wrote.
Finish = Callable[[OpenedImage, np.ndarray, Scratch, Stopwatch], dict[str, Any]]


def predict_all(
    sources: Sequence[Source],
    model: Model,
    finish: Finish,
    *,
    folder: Path,
    stopwatch: Stopwatch,
    tile: int = TILE,
    halo: int = HALO,
    num_readers: int = 2,
    num_workers: int = 2,
) -> Iterator[Outcome]:
    """Predict every source; yields an outcome each, in order, as soon as it is done.

    Threads read ahead and finish behind the network, which runs in the calling thread; decoders and
    the labelling kernels release the interpreter lock. Small images of one size share batches.
    Temporary files of large images lie in `folder`. An image that fails is an outcome, too. After
    one that failed for want of disk space, no other is begun.
    """

    def read(source: Source) -> _Read:
        start = time.perf_counter()
        scratch = Scratch(folder)
        try:
            image = source.open(scratch, binning=model.info.binning)
            prepared = model.prepare(image.planes)
            height, width = prepared.image.shape[1:]
            if max(padded(height), padded(width)) <= tile:
                ((only,),) = plan(height, width, tile=tile, halo=halo)
                prepared = dataclasses.replace(prepared, ready=prepared.tile(only))
        finally:
            stopwatch.add("read", start)
        return _Read(image, prepared, scratch)

    def finished(item: _Read, maps: np.ndarray) -> dict[str, Any]:
        return finish(item.image, maps, item.scratch, stopwatch)

    with (
        ThreadPoolExecutor(num_readers, thread_name_prefix="read") as readers,
        ThreadPoolExecutor(num_workers, thread_name_prefix="finish") as workers,
    ):
        pending: deque[tuple[str, Future]] = deque()
        full = False
        try:
            for group in _groups(sources, readers, read, model):
                for name, future in _through_network(
                    group, model, workers, finished, stopwatch, tile, halo
                ):
                    pending.append((name, future))
                    while len(pending) > 2 * num_workers or (pending and pending[0][1].done()):
                        outcome = outcome_of(*pending.popleft())
                        full = full or outcome.is_disk_full
                        yield outcome
                if full:
                    break
            while pending:
                yield outcome_of(*pending.popleft())
        finally:
            readers.shutdown(wait=False, cancel_futures=True)
            workers.shutdown(wait=False, cancel_futures=True)


def _groups(
    sources: Sequence[Source],
    readers: ThreadPoolExecutor,
    read: Callable[[Source], _Read],
    model: Model,
) -> Iterator[list[tuple[str, Future]]]:
    """Images in order, read ahead; neighbours of one size that fit into a batch come together."""
    waiting: deque[tuple[str, Future]] = deque()
    rest = iter(sources)
    group: list[tuple[str, Future]] = []
    shape: tuple[int, ...] | None = None
    ahead = 2
    while True:
        while len(waiting) < ahead and (source := next(rest, None)) is not None:
            waiting.append((source.name, readers.submit(read, source)))
        if not waiting:
            break
        item = waiting.popleft()
        tile = None if item[1].exception() else item[1].result().prepared.ready
        if tile is not None:
            ahead = max(2, min(_PIXELS_AHEAD // (tile.shape[0] * tile.shape[1]), 64))
        if group and (tile is None or tile.shape != shape):
            yield group
            group = []
        group.append(item)
        shape = tile.shape if tile is not None else None
        if shape is None or len(group) >= min(model.batch_size(shape), ahead):
            yield group
            group = []
    if group:
        yield group


def _through_network(
    group: list[tuple[str, Future]],
    model: Model,
    workers: ThreadPoolExecutor,
    finished: Callable[[_Read, np.ndarray], dict[str, Any]],
    stopwatch: Stopwatch,
    tile: int,
    halo: int,
) -> Iterator[tuple[str, Future]]:
    if group[0][1].exception():  # stands alone
        yield group[0]
        return
    items: deque[tuple[str, _Read]] = deque((name, future.result()) for name, future in group)
    start = time.perf_counter()
    try:
        prepared = [item.prepared for _, item in items]
        scratch = items[0][1].scratch
        for maps in model.maps_of(prepared, tile=tile, halo=halo, scratch=scratch):
            stopwatch.add("network", start)
            name, item = items.popleft()
            yield name, workers.submit(finished, item, maps)
            start = time.perf_counter()
    except _INPUT_ERRORS as error:
        for name, _ in items:
            failed: Future = Future()
            failed.set_exception(error)
            yield name, failed


def outcome_of(name: str, future: Future) -> Outcome:
    """The outcome of an image whose work is (soon) done; faults of the program are raised."""
    error = future.exception()
    if error is None:
        return Outcome(name, record=future.result())
    if not isinstance(error, _INPUT_ERRORS):
        raise error
    return Outcome(name, error=error)
