"""A folder of predictions: what is done already, what is made of each image, what is noted."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from isl_jax.files import written_whole
from isl_jax.inference.info import ModelInfo
from isl_jax.inference.model import Prediction, interpret
from isl_jax.inference.pipeline import Stopwatch
from isl_jax.inference.relabel import MapSource
from isl_jax.inference.scratch import Scratch
from isl_jax.inference.sources import OpenedImage, Source
from isl_jax.outputs.images import largest
from isl_jax.outputs.writers import OUTPUTS, Found, files_of, write_outputs

RECORDS = "records"
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """What is to be made of every image, and where it goes.

    `fingerprint` stands for the model and all that decides the outputs but the image.
    """

    folder: Path
    info: ModelInfo
    outputs: tuple[str, ...]
    fingerprint: str

    def check(self, sources: Sequence[Source | MapSource]) -> None:
        """ValueError if an output needs images and there are only maps."""
        for name in self.outputs:
            if OUTPUTS[name].needs_image and any(
                isinstance(source, MapSource) and source.image is None for source in sources
            ):
                raise ValueError(f"--outputs={name} shows the images: give them with --input")

    def prepare(self) -> None:
        """Make the folder and write something into it; OSError in one line if that fails."""
        records = self.folder / RECORDS
        try:
            records.mkdir(parents=True, exist_ok=True)
            with written_whole(records / ".probe") as draft:
                draft.write_text("")
            (records / ".probe").unlink(missing_ok=True)
        except OSError as error:
            raise OSError(
                f"{self.folder}: cannot be written ({error.strerror or error}); choose another "
                "--out, or make it writable"
            ) from error

    def is_done(self, source: Source | MapSource) -> bool:
        """Whether an image has all its outputs, from these very files, model and parameters."""
        path = self.folder / RECORDS / f"{source.name}.json"
        try:
            record = json.loads(path.read_text())
        except (OSError, ValueError):
            return False
        return (
            record.get("fingerprint") == self.fingerprint
            and record.get("inputs") == _stamps(source.paths)
            and set(record.get("outputs", ())) >= set(self.outputs)
            and all((self.folder / name).exists() for name in record.get("files", ()))
        )

    def finish(
        self, image: OpenedImage, maps: np.ndarray, scratch: Scratch, stopwatch: Stopwatch
    ) -> dict[str, Any]:
        """Label the maps `[K, H, W]` of an image and write its outputs; returns their record."""
        start = time.perf_counter()
        prediction = interpret(self.info, maps, scratch=scratch)
        stopwatch.add("label", start)
        start = time.perf_counter()
        record = self._write(image, prediction)
        stopwatch.add("write", start)
        return record

    def _write(self, image: OpenedImage, prediction: Prediction) -> dict[str, Any]:
        found = Found(image.name, self.info, prediction, image.planes, image.pixel_size)
        write_outputs(self.folder, found, self.outputs)
        labels = prediction.labels
        record = {
            "name": image.name,
            "inputs": _stamps(image.paths),
            "outputs": list(self.outputs),
            "files": files_of(image.name, self.outputs, self.info),
            "fingerprint": self.fingerprint,
            "size": list(_shape(prediction)),
            "pixel_size": image.pixel_size,
            # Ids are 1..n without gaps.
            "num_objects": None if labels is None else largest(labels),
        }
        # The record comes last: an image that has one has everything else.
        with written_whole(self.folder / RECORDS / f"{image.name}.json") as draft:
            draft.write_text(json.dumps(record, indent=1) + "\n")
        return record


def _shape(prediction: Prediction) -> tuple[int, ...]:
    shown = prediction.stain if prediction.labels is None else prediction.labels
    assert shown is not None
    return shown.shape


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of all images in a folder of predictions, whoever made them."""
    paths = sorted((folder / RECORDS).glob("*.json"))
    return [json.loads(path.read_text()) for path in paths if not path.name.startswith(".")]


def fingerprint(model_folder: Path, info: ModelInfo, *parameters: Any) -> str:
    """Digest of a model's weights, its description as used, and further parameters."""
    digest = hashlib.sha256()
    with (model_folder / "weights.safetensors").open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    described = dataclasses.asdict(info)
    digest.update(json.dumps([described, *parameters], sort_keys=True).encode())
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
