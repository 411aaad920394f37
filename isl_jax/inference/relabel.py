"""Other labels from maps that were written before: everything of a prediction but the network."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isl_jax.inference.info import ModelInfo
from isl_jax.inference.pipeline import Finish, Outcome, Stopwatch, outcome_of
from isl_jax.inference.scratch import Scratch
from isl_jax.inference.sources import OpenedImage, Source
from isl_jax.ingest import readers


@dataclass(frozen=True)
class MapSource:
    """The maps of one image, in the network's order, and the image itself if it is at hand."""

    name: str
    maps: tuple[Path, ...]
    image: Source | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that the labels depend on."""
        return (*self.maps, *(self.image.paths if self.image else ()))


def find_maps(folder: Path, info: ModelInfo, images: Sequence[Source] = ()) -> list[MapSource]:
    """Maps in a folder of predictions: those of `images`, or all when there are none.

    Raises ValueError for a model without such maps, FileNotFoundError for maps that are not there.
    """
    kinds = {
        "semantic": ("probability",),
        "distance_and_semantic": ("distance", "probability"),
    }.get(info.objective.target)
    if kinds is None:
        raise ValueError("--from_maps: this model predicts a stain, there is nothing to label")
    by_name = {image.name: image for image in images}
    suffix = f"_{kinds[-1]}.tif"
    names = list(by_name) or [
        path.name.removesuffix(suffix) for path in sorted(folder.glob(f"*{suffix}"))
    ]
    found = [
        MapSource(name, tuple(folder / f"{name}_{kind}.tif" for kind in kinds), by_name.get(name))
        for name in names
    ]
    missing = [path for source in found for path in source.maps if not path.exists()]
    if missing or not found:
        what = missing[0] if missing else f"{folder}/*{suffix}"
        raise FileNotFoundError(f"{what}: no such file; predict with --outputs=labels,maps first")
    return found


def relabel_all(
    sources: Sequence[MapSource],
    finish: Finish,
    *,
    folder: Path,
    stopwatch: Stopwatch,
    binning: int = 1,
    num_workers: int = 2,
) -> Iterator[Outcome]:
    """Label the maps of every source anew; yields an outcome each, in order.

    `finish`, `folder` and the end after a full disk are those of `pipeline.predict_all`.
    """

    def relabel(source: MapSource) -> dict[str, Any]:
        scratch = Scratch(folder)
        start = time.perf_counter()
        image = source.image.open(scratch, binning=binning) if source.image else None
        header = readers.inspect(source.maps[0])
        maps = scratch.empty((len(source.maps), header.height, header.width), "float32")
        for index, path in enumerate(source.maps):
            maps[index] = readers.read(path)[0]
        if image is None:
            image = OpenedImage(source.name, None, source.maps, header.pixel_size)
        elif image.planes is not None and image.planes.shape[1:] != maps.shape[1:]:
            raise ValueError(
                f"{source.maps[0]}: is {maps.shape[1]}×{maps.shape[2]} pixels, the image "
                f"{image.planes.shape[1]}×{image.planes.shape[2]}; give the --bin of the maps"
            )
        stopwatch.add("read", start)
        return finish(image, maps, scratch, stopwatch)

    with ThreadPoolExecutor(num_workers, thread_name_prefix="relabel") as workers:
        pending: deque = deque()
        rest = iter(sources)
        full = False
        try:
            while True:
                while len(pending) < 2 * num_workers and not full:
                    source = next(rest, None)
                    if source is None:
                        break
                    pending.append((source.name, workers.submit(relabel, source)))
                if not pending:
                    return
                outcome = outcome_of(*pending.popleft())
                full = full or outcome.is_disk_full
                yield outcome
        finally:
            workers.shutdown(wait=False, cancel_futures=True)
