"""A folder of predictions: what is done already, what is made of each image, what is noted."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from isl_jax.files import write_json, write_text
from isl_jax.inference.info import ModelInfo
from isl_jax.inference.large import OpenedImage, Scratch, largest
from isl_jax.inference.model import Prediction, interpret

RECORDS = "records"
# Writes the outputs of an image, each whole or not at all; returns the names of its files.
Write = Callable[[OpenedImage, Prediction], list[str]]
STAGES = ("read", "network", "label", "write")
T = TypeVar("T")


class ImageSource(Protocol):
    """What images are opened from: `sources.Source`, `relabel.MapSource`."""

    @property
    def name(self) -> str:
        """What outputs are named after."""
        ...

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that the outputs depend on."""
        ...

    def open(self, scratch: Scratch, *, binning: int = 1) -> OpenedImage:
        """Read the image; ValueError or OSError in one line that names the file."""
        ...


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
class Job:
    """What is to be made of every image, and where it goes.

    `outputs` are the names of what `write` writes into `folder`. `fingerprint` stands for the model
    and all that decides the outputs but the image.
    """

    folder: Path
    info: ModelInfo
    outputs: tuple[str, ...]
    fingerprint: str
    write: Write
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def scratch(self) -> Scratch:
        """Where large arrays of the job lie: beside what is written."""
        return Scratch(self.folder)

    def prepare(self) -> None:
        """Make the folder and write something into it; OSError in one line if that fails."""
        probe = self.folder / RECORDS / ".probe"
        try:
            probe.parent.mkdir(parents=True, exist_ok=True)
            write_text(probe, "")
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise OSError(
                f"{self.folder}: cannot be written ({error.strerror or error}); choose another "
                "--out, or make it writable"
            ) from error

    def is_done(self, source: ImageSource) -> bool:
        """Whether an image has all its outputs, from these very files, model and parameters."""
        try:
            record = json.loads(self._record_path(source.name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return (
            record.get("fingerprint") == self.fingerprint
            and record.get("inputs") == _stamps(source.paths)
            and set(record.get("outputs", ())) >= set(self.outputs)
            and all((self.folder / name).exists() for name in record.get("files", ()))
        )

    def finish(self, image: OpenedImage, maps: np.ndarray) -> dict[str, Any]:
        """Label the maps `[K, H, W]` of an image and write its outputs; returns their record."""
        start = time.perf_counter()
        prediction = interpret(self.info, maps, scratch=self.scratch)
        self.stopwatch.add("label", start)
        start = time.perf_counter()
        labels = prediction.labels
        record = {
            "name": image.name,
            "inputs": _stamps(image.paths),
            "outputs": list(self.outputs),
            "files": self.write(image, prediction),
            "fingerprint": self.fingerprint,
            "size": list(maps.shape[1:]),
            "pixel_size": image.pixel_size,
            # Ids are 1..n without gaps.
            "num_objects": None if labels is None else largest(labels),
        }
        # The record comes last: an image that has one has everything else.
        write_json(self._record_path(image.name), record)
        self.stopwatch.add("write", start)
        return record

    def _record_path(self, name: str) -> Path:
        return self.folder / RECORDS / f"{name}.json"


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of all images in a folder of predictions, whoever made them."""
    paths = sorted((folder / RECORDS).glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.name[0] != "."]


def fingerprint(model_folder: Path, info: ModelInfo, *parameters: Any) -> str:
    """Digest of a model's weights, its description as used, and further parameters."""
    digest = hashlib.sha256()
    with (model_folder / "weights.safetensors").open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update(json.dumps([info.described(), *parameters], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def shard(sources: Sequence[T], text: str) -> list[T]:
    """Every n-th source from the i-th on, for `i/n` with i in 0..n−1."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ValueError(f"--shard={text}: expected i/n with i from 0 to n - 1, such as 0/4")
    return list(sources[int(index) :: int(count)])


def _stamps(paths: Iterable[Path]) -> list[list[Any]]:
    """Path, size and time of each input: what tells that it has not been replaced."""
    stats = [(path.absolute(), path.stat()) for path in paths]
    return [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats]
