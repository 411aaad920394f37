"""The prepared data set: memory-mapped arrays of each field, described by dataset.json."""

from collections.abc import Callable
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from functools import lru_cache, partial
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from isl_jax.data.background import Background
from isl_jax.data.description import REMEDY, read_description
from isl_jax.data.normalisation import PAPER, Levels, Normalisation, measure
from isl_jax.data.splits import SPLITS
from isl_jax.data.stain import StainScale
from isl_jax.tabular import read_npy

FIELDS_DIR = "fields"
INPUTS, STAIN, LABELS = "inputs.npy", "stain.npy", "labels.npy"
# Labels that no person has seen, made from the stain.
DRAFTS = "drafts.npy"
BACKGROUND = "background.npy"
# Pixels of the labels that nobody has annotated (`data.partial`).
IGNORED = "ignored.npy"

# Pages of an open map count as this process's memory, and data sets have hundreds of fields; to
# open one again takes a few hundredths of the time that a crop takes.
_OPEN_MAPS = 16


@dataclass(frozen=True)
class Field:
    """One prepared field of view; input_mean and input_std [C] in raw units, per channel.

    Where planes are made flat `input_spread` [C] is theirs. Where stains are scaled by field,
    `stain_background` and `stain_signal` (None if it shows none) are its, in raw units.
    """

    name: str
    group: str
    split: str
    height: int
    width: int
    has_stain: bool
    has_labels: bool
    input_mean: tuple[float, ...]
    input_std: tuple[float, ...]
    input_spread: tuple[float, ...] | None = None
    stain_background: float | None = None
    stain_signal: float | None = None
    has_ignored: bool = False
    has_drafts: bool = False


@dataclass(frozen=True)
class Dataset:
    """A prepared data set, opened: descriptions in memory, pixels on disk until asked for."""

    root: Path
    study: str
    channels: tuple[str, ...]
    stain: str | None
    stain_scale: StainScale
    fields: tuple[Field, ...]
    pixel_size: float | None = None
    binning: int = 1
    normalisation: Normalisation = PAPER
    _by_name: dict = field(init=False, repr=False, compare=False, default_factory=dict)
    _boxes: dict = field(init=False, repr=False, compare=False, default_factory=dict)
    _open: Callable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._by_name.update({item.name: item for item in self.fields})
        object.__setattr__(self, "_open", _map_opener())

    def __reduce__(self):
        # Open maps stay behind: whoever receives a data set opens its own.
        values = (getattr(self, item.name) for item in dataclass_fields(self) if item.init)
        return Dataset, tuple(values)

    def field(self, name: str) -> Field:
        """The field of that name; ValueError if there is none."""
        if name not in self._by_name:
            raise ValueError(f"{self.root}: there is no field {name!r} in this data set")
        return self._by_name[name]

    def path(self, name: str, array: str) -> Path:
        """Where an array of a field lies: INPUTS, STAIN, LABELS, DRAFTS or BACKGROUND."""
        return self.root / FIELDS_DIR / self.field(name).name / array

    def inputs(self, name: str) -> np.ndarray:
        """Label-free planes, memory-mapped [H, W, C] in the raw dtype."""
        item = self.field(name)
        shape = (item.height, item.width, len(self.channels))
        return self._open(self.path(name, INPUTS), shape=shape)

    def stain_image(self, name: str) -> np.ndarray:
        """Stain, memory-mapped [H, W] in the raw dtype; ValueError if the field has none."""
        if not self.field(name).has_stain:
            raise ValueError(f"{self.root}: field {name!r} has no stain image")
        item = self.field(name)
        return self._open(self.path(name, STAIN), shape=(item.height, item.width))

    def labels(self, name: str) -> np.ndarray:
        """Instance labels, memory-mapped [H, W] int32, 0 background; ValueError without labels."""
        return self._label_image(name, LABELS, "label", self.field(name).has_labels)

    def drafts(self, name: str) -> np.ndarray:
        """Labels made from the stain (`isl-annotate --drafts`), as `labels`."""
        return self._label_image(name, DRAFTS, "draft", self.field(name).has_drafts)

    def _label_image(self, name: str, array: str, what: str, is_there: bool) -> np.ndarray:
        if not is_there:
            raise ValueError(f"{self.root}: field {name!r} has no {what} image")
        item = self.field(name)
        return self._open(self.path(name, array), shape=(item.height, item.width), dtype="int32")

    def ignored(self, name: str) -> np.ndarray | None:
        """Where the labels say nothing, bool [H, W]; None if all of the field is annotated."""
        item = self.field(name)
        if not item.has_ignored:
            return None
        return self._open(self.path(name, IGNORED), shape=(item.height, item.width), dtype="bool")

    def label_boxes(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Label ids [n] and their bounding boxes [n, 4]: top, bottom, left, right, ends exclusive.

        Computed once and kept.
        """
        if name not in self._boxes:
            self._boxes[name] = _bounding_boxes(self.labels(name))
        return self._boxes[name]

    def levels(self, name: str, normalisation: Normalisation | None = None) -> Levels:
        """What normalises the planes of a field, as the data set does or as somebody else.

        Read where it has been measured at preparation, or else measured now.
        """
        item, wanted = self.field(name), normalisation or self.normalisation
        mean = np.array(item.input_mean)
        if wanted.kind == "standardise":
            return Levels(mean, np.array(item.input_std), wanted.clip)
        if self.normalisation.kind == "flat":
            background = Background(self._open(self.path(name, BACKGROUND)))
            return Levels(mean, np.array(item.input_spread), wanted.clip, background)
        return measure(wanted, self.inputs(name))

    def standardised(self, name: str, normalisation: Normalisation | None = None) -> np.ndarray:
        """Label-free planes of a whole field, normalised: float32 [H, W, C].

        A model wants them by its own normalisation, whatever that of the data set is.
        """
        return self.levels(name, normalisation).apply(self.inputs(name))

    def field_stain_scale(self, name: str) -> StainScale:
        """What makes a field's raw stain the target that is learnt from it."""
        if self.stain_scale.rule != "field":
            return self.stain_scale
        item = self.field(name)
        assert item.stain_background is not None
        high = inf if item.stain_signal is None else item.stain_signal
        return StainScale(item.stain_background, high, "field")

    @property
    def without_signal(self) -> tuple[str, ...]:
        """Names of the fields whose stain is scaled by field and shows nothing: target 0."""
        by_field = self.stain_scale.rule == "field"
        return tuple(
            item.name
            for item in self.fields
            if by_field and item.has_stain and item.stain_signal is None
        )

    def select(self, split: str, *, stain: bool = False, labels: bool = False) -> tuple[Field, ...]:
        """Fields of one split, of these the ones that have a stain and labels where asked for."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
        return tuple(
            item
            for item in self.fields
            if item.split == split
            and (item.has_stain or not stain)
            and (item.has_labels or not labels)
        )


def _map_opener() -> Callable[..., np.ndarray]:
    """A function that maps a .npy file into memory (`read_npy`); the few used last stay open."""
    return lru_cache(maxsize=_OPEN_MAPS)(partial(read_npy, remedy=REMEDY))


def _bounding_boxes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label ids [n] and their boxes [n, 4]: top, bottom, left, right, ends exclusive."""
    ids, compact = np.unique(labels, return_inverse=True)
    # Compact ids, 0 for background: find_objects allocates a slot for every number up to the last.
    background = int(ids[0] == 0)
    found = ndimage.find_objects(compact.reshape(labels.shape) + (1 - background))
    boxes = [(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in found]
    return ids[background:], np.array(boxes, int).reshape(-1, 4)


def open_dataset(root: Path | str) -> Dataset:
    """Open a prepared data set.

    Raises FileNotFoundError or ValueError in one line if `root` is not such a folder, is damaged,
    or was written by a newer version.
    """
    root = Path(root)
    record = read_description(root)
    scale = record["stain_scale"]
    dataset = Dataset(
        root=root,
        study=record["study"],
        channels=tuple(record["channels"]),
        stain=record["stain"],
        stain_scale=StainScale(scale["low"], scale["high"], scale.get("rule", "percentile")),
        fields=tuple(_field(entry) for entry in record["fields"]),
        pixel_size=record["pixel_size"],
        binning=record.get("binning", 1),
        normalisation=Normalisation.from_json(record.get("normalisation")),
    )
    needed = (INPUTS, BACKGROUND) if dataset.normalisation.kind == "flat" else (INPUTS,)
    for file in (dataset.path(item.name, array) for item in dataset.fields for array in needed):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: is missing; {REMEDY}")
    return dataset


def _field(entry: dict[str, Any]) -> Field:
    # What older data sets lack has a default.
    values = {item.name: entry[item.name] for item in dataclass_fields(Field) if item.name in entry}
    for key in ("input_mean", "input_std", "input_spread"):
        if values.get(key) is not None:
            values[key] = tuple(values[key])
    return Field(**values)
