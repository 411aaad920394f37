"""A folder of predictions: what is done already, what is made of each image, what is noted."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from isl_jax.files import clear_drafts, write_text
from isl_jax.inference.folder import (
    RECORDS,
    Record,
    claimed,
    files_of,
    is_another,
    read_record,
    stamps,
    write_record,
)
from isl_jax.inference.info import ModelInfo
from isl_jax.inference.large import OpenedImage, Scratch, largest
from isl_jax.inference.model import Prediction, interpret
from isl_jax.models.weights import WEIGHTS

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

    @property
    def origins(self) -> tuple[Path, ...]:
        """Those, and others that stand for the same image."""
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

    `outputs` are the names of what `write` writes into `folder`, for an image of some name as
    `files`. `fingerprint` stands for the model and all that decides the outputs but the image.
    """

    folder: Path
    info: ModelInfo
    outputs: tuple[str, ...]
    fingerprint: str
    write: Write
    files: Callable[[str], list[str]]
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def scratch(self) -> Scratch:
        """Where large arrays of the job lie: beside what is written."""
        return Scratch(self.folder)

    def prepare(self) -> None:
        """Make the folder and write something into it; OSError in one line if that fails.

        What killed runs left half-written is cleared.
        """
        folder = self.folder
        if folder.is_symlink() and not folder.exists():
            raise OSError(
                f"{folder}: cannot be written, it is a link to nothing; choose another --out"
            )
        if folder.exists() and not folder.is_dir():
            raise OSError(f"{folder}: cannot be written, it is a file; choose another --out")
        probe = folder / RECORDS / ".probe"
        try:
            probe.parent.mkdir(parents=True, exist_ok=True)
            write_text(probe, "")
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise OSError(
                f"{folder}: cannot be written ({error.strerror or error}); choose another "
                "--out, or make it writable"
            ) from error
        for place in (folder, probe.parent):
            clear_drafts(place)

    def check_free(self, sources: Sequence[ImageSource], *, overwrite: bool = False) -> None:
        """ValueError if an output would replace what is not this image's, nor ours.

        With `overwrite` only if it would replace an input.
        """
        if not self.folder.is_dir():
            return
        inputs = {path.resolve() for source in sources for path in source.paths}
        for source in sources:
            for name in self.files(source.name):
                is_input = (self.folder / name).resolve() in inputs
                # Maps that are labelled anew, in place, are ours.
                if is_input and name not in files_of(self.folder, source.name):
                    raise ValueError(
                        f"{self.folder / name}: is an input and would be replaced by the output; "
                        "choose another --out"
                    )
        remedy = "choose another --out, or replace it with --overwrite"
        for source in () if overwrite else sources:
            record = read_record(self.folder, source.name)
            other = is_another(record, source.origins) if record else None
            if other is not None:
                raise ValueError(
                    f"{self.folder}: holds results of {other}, and {source.paths[0]} is called "
                    f"{source.name!r}, too; {remedy}"
                )
            there = [name for name in self.files(source.name) if _is_there(self.folder / name)]
            foreign = set(there) - files_of(self.folder, source.name) if there else ()
            if foreign:
                raise ValueError(
                    f"{self.folder / min(foreign)}: is there, and was not written by isl-predict "
                    f"for {source.paths[0]}; {remedy}"
                )

    def is_done(self, source: ImageSource) -> bool:
        """Whether an image has all its outputs, from these very files, model and parameters."""
        record = read_record(self.folder, source.name)
        if record is None or record.fingerprint != self.fingerprint:
            return False
        try:
            inputs = stamps(source.paths)
        except OSError:  # opening it will tell
            return False
        return (
            record.inputs == inputs
            and set(record.outputs) >= set(self.outputs)
            and all((self.folder / name).exists() for name in record.files)
        )

    def finish(self, image: OpenedImage, maps: np.ndarray, origins: Sequence[Path] = ()) -> Record:
        """Label the maps `[K, H, W]` of an image and write its outputs; returns their record."""
        start = time.perf_counter()
        prediction = interpret(self.info, maps, scratch=self.scratch)
        self.stopwatch.add("label", start)
        return self.store(image, prediction, origins)

    def store(
        self, image: OpenedImage, prediction: Prediction, origins: Sequence[Path] = ()
    ) -> Record:
        """Write the outputs of an image, then their record, which is returned."""
        start = time.perf_counter()
        labels, spacing = prediction.labels, image.spacing
        shown = getattr(prediction, self.info.task.map_names[0])
        inputs = stamps(image.paths)
        with claimed(self.folder, image.name, self.files(image.name)):
            written = self.write(image, prediction)
        record = Record(
            name=image.name,
            inputs=inputs,
            outputs=list(self.outputs),
            files=written,
            fingerprint=self.fingerprint,
            size=list(shown.shape),
            pixel_size=spacing and math.sqrt(spacing[0] * spacing[1]),
            # Ids are 1..n without gaps.
            num_objects=None if labels is None else largest(labels),
            spacing=spacing and list(spacing),
            binning=image.binning,
            origins=sorted(str(path.absolute()) for path in set(origins) - set(image.paths)),
        )
        # The record comes last: an image that has one has everything else.
        write_record(self.folder, record)
        self.stopwatch.add("write", start)
        return record


def fingerprint(model_folder: Path, info: ModelInfo, *parameters: Any) -> str:
    """Digest of a model's weights, its description as used, and further parameters."""
    digest = hashlib.sha256()
    with (model_folder / WEIGHTS).open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update(json.dumps([info.described(), *parameters], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def shard(sources: Sequence[T], text: str) -> list[T]:
    """Every n-th source from the i-th on, for `i/n` with i in 0..n−1."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ValueError(f"--shard={text}: expected i/n with i from 0 to n - 1, such as 0/4")
    return list(sources[int(index) :: int(count)])


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()
