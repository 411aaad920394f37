"""The prepared data set: memory-mapped arrays of each field, described by dataset.json."""

from collections.abc import Callable
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from scipy import ndimage

from isl_jax.data.normalisation import StainScale, standardise
from isl_jax.data.splits import SPLITS
from isl_jax.files import read_json

SCHEMA = 1
DESCRIPTION = "dataset.json"
FIELDS_DIR = "fields"
INPUTS, STAIN, LABELS = "inputs.npy", "stain.npy", "labels.npy"

# Pages of an open map count as this process's memory, and data sets have hundreds of fields; to
# open one again takes a few hundredths of the time that a crop takes.
_OPEN_MAPS = 16


@dataclass(frozen=True)
class Field:
    """One prepared field of view; input_mean and input_std [C] in raw units, per channel."""

    name: str
    group: str
    split: str
    height: int
    width: int
    has_stain: bool
    has_labels: bool
    input_mean: tuple[float, ...]
    input_std: tuple[float, ...]


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
    _by_name: dict = field(init=False, repr=False, compare=False, default_factory=dict)
    _boxes: dict = field(init=False, repr=False, compare=False, default_factory=dict)
    _open: Callable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._by_name.update({item.name: item for item in self.fields})
        object.__setattr__(self, "_open", _opener())

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
        """Where an array of a field lies: INPUTS, STAIN or LABELS."""
        return self.root / FIELDS_DIR / self.field(name).name / array

    def inputs(self, name: str) -> np.ndarray:
        """Label-free planes, memory-mapped [H, W, C] in the raw dtype."""
        return self._open(self.path(name, INPUTS))

    def stain_image(self, name: str) -> np.ndarray:
        """Stain, memory-mapped [H, W] in the raw dtype; ValueError if the field has none."""
        if not self.field(name).has_stain:
            raise ValueError(f"{self.root}: field {name!r} has no stain image")
        return self._open(self.path(name, STAIN))

    def labels(self, name: str) -> np.ndarray:
        """Instance labels, memory-mapped [H, W] int32, 0 background; ValueError without labels."""
        if not self.field(name).has_labels:
            raise ValueError(f"{self.root}: field {name!r} has no label image")
        return self._open(self.path(name, LABELS))

    def label_boxes(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Label ids [n] and their bounding boxes [n, 4]: top, bottom, left, right, ends exclusive.

        Computed once and kept.
        """
        if name not in self._boxes:
            self._boxes[name] = _bounding_boxes(self.labels(name))
        return self._boxes[name]

    def standardised(self, name: str) -> np.ndarray:
        """Label-free planes of a whole field, standardised: float32 [H, W, C]."""
        item = self.field(name)
        return standardise(self.inputs(name), item.input_mean, item.input_std)

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


def _opener() -> Callable[[Path], np.ndarray]:
    """A function that maps a .npy file into memory; the few maps used last stay open."""
    headers: dict[Path, Callable[[], np.ndarray]] = {}
    lock = Lock()

    @lru_cache(maxsize=_OPEN_MAPS)
    def open_array(path: Path) -> np.ndarray:
        if path not in headers:
            # One thread at a time: numpy parses the header with `ast`, and CPython 3.11 raises
            # "AST constructor recursion depth mismatch" when two threads do so at once.
            with lock:
                array = np.load(path, mmap_mode="r")
            headers[path] = partial(np.memmap, path, array.dtype, "r", array.offset, array.shape)
        return headers[path]()

    return open_array


def _bounding_boxes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
    path = root / DESCRIPTION
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; make it with isl-prepare --out={root}")
    if not path.is_file():
        raise FileNotFoundError(
            f"{root}: is not a prepared data set (no {DESCRIPTION}); make one with isl-prepare"
        )
    remedy = "prepare the data set again"
    record = read_json(path, remedy=remedy)
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path}: has schema {schema}, this version reads {SCHEMA}; {remedy}")
    scale = record["stain_scale"]
    dataset = Dataset(
        root=root,
        study=record["study"],
        channels=tuple(record["channels"]),
        stain=record["stain"],
        stain_scale=StainScale(scale["low"], scale["high"]),
        fields=tuple(_field(entry) for entry in record["fields"]),
        pixel_size=record["pixel_size"],
        binning=record.get("binning", 1),
    )
    for item in dataset.fields:
        inputs = dataset.path(item.name, INPUTS)
        if not inputs.is_file():
            raise FileNotFoundError(f"{inputs}: is missing; {remedy}")
    return dataset


def _field(entry: dict[str, Any]) -> Field:
    values = {item.name: entry[item.name] for item in dataclass_fields(Field)}
    for key in ("input_mean", "input_std"):
        values[key] = tuple(values[key])
    return Field(**values)


def annotated_subset(dataset: Dataset, n: int, seed: int) -> tuple[Field, ...]:
    """The first n of the labelled training fields in an order drawn by `seed`.

    Nested in n for one seed (1 ⊂ 10 ⊂ …); val and test never enter. Raises ValueError if there are
    fewer than n.
    """
    candidates = dataset.select("train", labels=True)
    if not 1 <= n <= len(candidates):
        raise ValueError(
            f"{dataset.root}: {n} annotated training fields were asked for, there are "
            f"{len(candidates)}; choose N between 1 and {len(candidates)}"
        )
    order = np.random.default_rng(seed).permutation(len(candidates))
    return tuple(candidates[k] for k in order[:n])
