"""Drafts: label images made from the stain of each field, with a word on what each is worth."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Literal, Protocol

import numpy as np
from skimage.filters import threshold_otsu

from isl_jax.data.description import DESCRIPTION, REMEDY
from isl_jax.data.stain import Shows
from isl_jax.data.store import DRAFTS, Dataset
from isl_jax.files import read_json, write_json, written_whole
from isl_jax.instances.drafts import draft_cells, draft_nuclei
from isl_jax.tabular import write_csv

Method = Literal["classical", "cellpose"]
METHODS: tuple[Method, ...] = ("classical", "cellpose")
# Table of the drafts of a data set, in its folder.
TABLE = "drafts.csv"
# Objects of areas beyond this factor of the median are unlikely, in either direction.
_UNLIKELY = 3.0


class OtherStain(Protocol):
    """Where the nuclear stain of a field is, of a data set whose own stain shows whole cells."""

    def __call__(self, name: str) -> np.ndarray | None:
        """The stain [H, W] of the field of that name; None if it has none."""
        ...


@dataclass(frozen=True)
class Quality:
    """What a draft is worth, as far as the stain alone can tell.

    `explained`: share of the stained pixels (Otsu's threshold) that lie in objects, 0..1;
    `unlikely`: share of the objects whose area is beyond 3 times the median, or below a third (of
    those that the border of the image does not cut, 0..1).
    """

    objects: int
    explained: float
    unlikely: float

    @property
    def word(self) -> str:
        """`good`, `fair`, `poor`, or `empty` for a draft without an object."""
        if not self.objects:
            return "empty"
        if self.explained >= 0.8 and self.unlikely <= 0.1:
            return "good"
        return "fair" if self.explained >= 0.5 and self.unlikely <= 0.3 else "poor"


@dataclass(frozen=True)
class Drafter:
    """How drafts are made: by which method, of a stain that shows nuclei or whole cells.

    `nuclei`: the nuclear stain of each field, for cells. Raises ValueError where Cellpose is asked
    for and not installed.
    """

    method: Method = "classical"
    shows: Shows = "nuclei"
    nuclei: OtherStain | None = None

    def __post_init__(self) -> None:
        if self.method == "cellpose":
            _cellpose_models()

    def __call__(self, dataset: Dataset, name: str) -> np.ndarray:
        """Draft of the field of that name, int32 [H, W]; ValueError if it has no stain."""
        stain = np.asarray(dataset.stain_image(name))
        if self.method == "cellpose":
            return by_cellpose(stain, self.shows)
        if self.shows == "nuclei":
            return draft_nuclei(stain)
        other = self.nuclei(name) if self.nuclei else None
        return draft_cells(stain, None if other is None else draft_nuclei(other))


def quality(labels: np.ndarray, stain: np.ndarray) -> Quality:
    """Quality of a draft, labels [H, W], of the stain [H, W] that it was made from."""
    labels = np.asarray(labels)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if not sizes.any():
        return Quality(0, 0.0, 0.0)
    # What the border of the image cuts says nothing about sizes.
    whole = sizes.copy()
    whole[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = 0
    areas = whole[whole > 0] if whole.any() else sizes[sizes > 0]
    # Of square roots: dim objects count as signal, too.
    root = np.sqrt(stain - np.min(stain).astype(np.float32))
    signal = root > threshold_otsu(root)
    middle = np.median(areas)
    return Quality(
        int(np.count_nonzero(sizes)),
        float(np.mean(labels[signal] > 0)),
        float(np.mean((areas > _UNLIKELY * middle) | (areas * _UNLIKELY < middle))),
    )


def stained_fields(dataset: Dataset) -> tuple[str, ...]:
    """Names of the fields that have a stain; ValueError if none has."""
    names = tuple(item.name for item in dataset.fields if item.has_stain)
    if not names:
        raise ValueError(
            f"{dataset.root}: has no stain to make drafts from; prepare it with isl-prepare --stain"
        )
    return names


def draft_fields(
    dataset: Dataset, names: Sequence[str], drafter: Drafter, *, workers: int = 1
) -> Iterator[tuple[str, np.ndarray, Quality]]:
    """Name, draft and quality of each field, in order; on several processes if asked to."""
    if workers <= 1:
        yield from (_drafted(dataset, drafter, name) for name in names)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_drafted, dataset, drafter, name) for name in names]
        try:
            # Each is let go of when it has been taken: label images are large.
            while futures:
                yield futures.pop(0).result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _drafted(dataset: Dataset, drafter: Drafter, name: str) -> tuple[str, np.ndarray, Quality]:
    labels = drafter(dataset, name)
    return name, labels, quality(labels, np.asarray(dataset.stain_image(name)))


def write_drafts(
    dataset: Dataset,
    drafter: Drafter,
    *,
    workers: int = 1,
    on_field: Callable[[], object] = lambda: None,
) -> dict[str, Quality]:
    """Write a draft of every stained field into the prepared data set, beside its real labels.

    `dataset.json` tells of them when all are there, and of no draft where the stain shows no
    object; drafts of before are replaced, labels never touched. Returns the quality of each; raises
    ValueError for a data set without a stain, or without an object in any, with nothing written.
    """
    found = {}
    names = stained_fields(dataset)
    for name, labels, worth in draft_fields(dataset, names, drafter, workers=workers):
        if worth.objects:
            path = dataset.path(name, DRAFTS)
            with written_whole(path) as draft, draft.open("wb") as file:
                np.save(file, labels)
        found[name] = worth
        on_field()
    if not any(worth.objects for worth in found.values()):
        raise ValueError(
            f"{dataset.root}: no object was found in the stain of any field; look at the stain in "
            "its preview.jpg"
        )
    path = dataset.root / DESCRIPTION
    record = read_json(path, remedy=REMEDY)
    for entry in record["fields"]:
        entry["has_drafts"] = entry["name"] in found and found[entry["name"]].objects > 0
    record["drafts"] = {"method": drafter.method, "shows": drafter.shows}
    record["drafts"]["nuclei"] = drafter.nuclei is not None
    write_json(path, record)
    rows = [
        (name, dataset.field(name).split, q.objects, q.explained, q.unlikely, q.word)
        for name, q in found.items()
    ]
    columns = ("field", "split", "objects", "explained", "unlikely", "quality")
    write_csv(dataset.root / TABLE, columns, rows)
    return found


def _cellpose_models() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from cellpose import models  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"Cellpose is not installed here ({error}): pip install cellpose, or use the "
            "classical drafts"
        ) from None
    return models


def by_cellpose(stain: np.ndarray, shows: Shows) -> np.ndarray:
    """Labels int32 [H, W] that Cellpose finds in a stain [H, W]; ValueError without Cellpose."""
    models = _cellpose_models()
    if hasattr(models, "Cellpose"):  # up to version 3: a model for each, which finds the size
        kind = "nuclei" if shows == "nuclei" else "cyto3"
        masks = models.Cellpose(model_type=kind).eval(stain, channels=[0, 0], diameter=None)[0]
    else:
        masks = models.CellposeModel(gpu=True).eval(stain)[0]
    return np.asarray(masks, np.int32)
