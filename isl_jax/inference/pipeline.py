"""Many images, one after the other through the network, while others are read and written."""

import dataclasses
import errno
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from isl_jax.inference.folder import Record
from isl_jax.inference.job import ImageSource, Job
from isl_jax.inference.large import OpenedImage
from isl_jax.inference.model import Model
from isl_jax.inference.tiling import HALO, TILE, StandardisedImage, padded, plan

# Pixels that wait, read, for the network: two fields of 2160 × 2160, or many small ones.
_PIXELS_AHEAD = 1 << 24
# Some libraries raise what is no Exception.
_OF_THE_USER = (KeyboardInterrupt, SystemExit)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# An image beside its tiles; None where its maps have been read instead.
_Read = tuple[OpenedImage, StandardisedImage | None]


@dataclass(frozen=True)
class Outcome:
    """What became of an image: the record of its outputs, or why there are none."""

    name: str
    record: Record | None = None
    error: BaseException | None = None

    @property
    def is_disk_full(self) -> bool:
        """Whether it failed for want of space, as the next ones would."""
        # Libraries tell of it in errors of their own.
        text = os.strerror(errno.ENOSPC)
        return getattr(self.error, "errno", None) in _NO_SPACE or text in str(self.error)


class Rate:
    """Lines that tell how far a long run has come, for where nobody watches a bar."""

    def __init__(self, total: int, *, every: float = 60.0) -> None:
        self._total, self._every = total, every
        self._began = self._told = time.monotonic()

    def line(self, count: int) -> str | None:
        """A line, if the last one was some time ago and there is more to come."""
        now = time.monotonic()
        if now - self._told < self._every or not 0 < count < self._total:
            return None
        self._told = now
        minutes = (now - self._began) / count * (self._total - count) / 60
        return f"{count} of {self._total} images, about {minutes:.0f} min left"


def predict_all(
    sources: Sequence[ImageSource],
    model: Model,
    job: Job,
    *,
    tile: int = TILE,
    halo: int = HALO,
    num_readers: int = 2,
    num_workers: int = 2,
) -> Iterator[Outcome]:
    """Predict every source; yields an outcome each, in order, as soon as it is done.

    Threads read ahead and finish behind the network, which runs in the calling thread; decoders and
    the labelling kernels release the interpreter lock. Small images of one size share batches.
    Sources that give maps (`relabel.MapSource`) pass the network by. An image that fails is an
    outcome, too, whatever it raised. After one that failed for want of disk space, no other is
    begun.
    """
    network = _Network(model, job, tile, halo)
    with (
        ThreadPoolExecutor(num_readers, thread_name_prefix="read") as readers,
        ThreadPoolExecutor(num_workers, thread_name_prefix="finish") as workers,
    ):
        pending: deque[tuple[ImageSource, Future]] = deque()
        full = False
        try:
            for group in network.groups(sources, readers):
                for source, future in network.finishing(group, workers):
                    pending.append((source, future))
                    while len(pending) > 2 * num_workers or (pending and pending[0][1].done()):
                        outcome = _outcome_of(*pending.popleft())
                        full = full or outcome.is_disk_full
                        yield outcome
                if full:
                    break
            while pending:
                yield _outcome_of(*pending.popleft())
        finally:
            readers.shutdown(wait=False, cancel_futures=True)
            workers.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Network:
    """The stage between readers and workers."""

    model: Model
    job: Job
    tile: int
    halo: int

    def read(self, source: ImageSource) -> _Read:
        """Open and standardise an image; a single tile is made ready for the network."""
        start = time.perf_counter()
        try:
            image = source.open(self.job.scratch, binning=self.model.info.binning)
            if image.maps is not None:
                return image, None
            prepared = self.model.prepare(image.planes)
            height, width = prepared.image.shape[1:]
            if max(padded(height), padded(width)) <= self.tile:
                ((only,),) = plan(height, width, tile=self.tile, halo=self.halo)
                prepared = dataclasses.replace(prepared, ready=prepared.tile(only))
            return image, prepared
        finally:
            self.job.stopwatch.add("read", start)

    def groups(
        self, sources: Iterable[ImageSource], readers: ThreadPoolExecutor
    ) -> Iterator[list[tuple[ImageSource, Future]]]:
        """Images in order, read ahead; neighbours of one size that fit into a batch together."""
        waiting: deque[tuple[ImageSource, Future]] = deque()
        rest = iter(sources)
        group: list[tuple[ImageSource, Future]] = []
        shape: tuple[int, ...] | None = None
        ahead = 2
        while True:
            while len(waiting) < ahead and (source := next(rest, None)) is not None:
                waiting.append((source, readers.submit(self.read, source)))
            if not waiting:
                break
            item = waiting.popleft()
            prepared = None if item[1].exception() else item[1].result()[1]
            tile = prepared.ready if prepared else None
            if tile is not None:
                ahead = max(2, min(_PIXELS_AHEAD // (tile.shape[0] * tile.shape[1]), 64))
            if group and (tile is None or tile.shape != shape):
                yield group
                group = []
            group.append(item)
            shape = tile.shape if tile is not None else None
            if shape is None or len(group) >= min(self.model.batch_size(shape), ahead):
                yield group
                group = []
        if group:
            yield group

    def finishing(
        self, group: list[tuple[ImageSource, Future]], workers: ThreadPoolExecutor
    ) -> Iterator[tuple[ImageSource, Future]]:
        """Send a group through the network, each image then to a worker; sources and futures."""
        source, first = group[0]
        if first.exception():  # stands alone
            yield source, first
            return
        items: deque[tuple[ImageSource, _Read]] = deque(
            (source, future.result()) for source, future in group
        )
        start = time.perf_counter()
        try:
            for maps in self._maps_of([read for _, read in items]):
                self.job.stopwatch.add("network", start)
                source, (image, _) = items.popleft()
                yield source, workers.submit(self.job.finish, image, maps, source.origins)
                start = time.perf_counter()
        except (GeneratorExit, *_OF_THE_USER):
            raise
        except BaseException as error:
            for source, _ in items:
                failed: Future = Future()
                failed.set_exception(error)
                yield source, failed

    def _maps_of(self, group: list[_Read]) -> Iterator[Any]:
        image, _ = group[0]
        if image.maps is not None:  # stands alone
            return iter([image.maps])
        prepared = [prepared for _, prepared in group if prepared is not None]
        return self.model.maps_of(
            prepared, tile=self.tile, halo=self.halo, scratch=self.job.scratch
        )


def _outcome_of(source: ImageSource, future: Future) -> Outcome:
    """The outcome of an image whose work is (soon) done; only what the user did is raised."""
    error = future.exception()
    if error is None:
        return Outcome(source.name, record=future.result())
    if isinstance(error, _OF_THE_USER):
        raise error
    return Outcome(source.name, error=error)
