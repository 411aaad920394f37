"""What drafts are worth: labels made from the stain against hand-drawn and simulated truth.

Reads the data sets in the folder that ISL_JAX_DATA names; cells are simulated here. With --peer
also a naive recipe, Otsu's threshold and connected components (cells: watershed from these), and
Cellpose where it is installed.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label
from skimage.segmentation import watershed

from isl_jax.annotate.drafting import by_cellpose, quality
from isl_jax.ingest.projections import PROJECTIONS
from isl_jax.instances.drafts import draft_cells, draft_nuclei
from isl_jax.instances.matching import match
from isl_jax.metrics import iou
from isl_jax.simulate import simulate_field, simulation

_PHASE = "phase_hela_and_others"
# Simulated fields, their size and their seed.
_FIELDS, _SIZE, _SEED = 6, 512, 0


class _Case(NamedTuple):
    """One image with its truth; `nuclei`: the nuclear stain beside a stain of whole cells."""

    stain: np.ndarray
    truth: np.ndarray
    nuclei: np.ndarray | None = None
    others: np.ndarray | None = None  # labels of somebody else, from the same stain


_Recipe = Callable[[_Case], np.ndarray]


def main(*, peer: bool) -> dict:
    """Print IoU of the foreground, F1 at IoU 0.5 and mAP, means over the images of each set.

    Raises FileNotFoundError without the data.
    """
    figures: dict[str, list] = {}
    if peer and not importlib.util.find_spec("cellpose"):
        print("cellpose is left out: it is not installed")
    print(f"{'set':<34}{'drafts':<24}{'IoU':>7}{'F1@0.5':>8}{'mAP':>7}  objects → found, quality")
    for name, cases, is_nuclei in _sets():
        for recipe, draft in _recipes(is_nuclei, cases, peer).items():
            rows, words = [], []
            for case in cases:
                found = draft(case)
                scores = match(case.truth, found)
                overlap = iou(found > 0, case.truth > 0)
                rows.append(
                    (overlap, scores.f1[0], scores.mean_ap, _count(case.truth), _count(found))
                )
                words.append(quality(found, case.stain).word)
            mean, total = np.mean(rows, axis=0), np.sum(rows, axis=0)
            told = ", ".join(f"{words.count(w)} {w}" for w in dict.fromkeys(words))
            print(
                f"{name:<34}{recipe:<24}{mean[0]:>7.3f}{mean[1]:>8.3f}{mean[2]:>7.3f}  "
                f"{total[3]:.0f} → {total[4]:.0f}, {told}",
                flush=True,
            )
            figures.setdefault(name, []).append({"drafts": recipe, "images": rows, "words": words})
    return figures


def _recipes(is_nuclei: bool, cases: list[_Case], peer: bool) -> dict[str, _Recipe]:
    recipes: dict[str, _Recipe] = {}
    if is_nuclei:
        recipes["classical"] = lambda case: draft_nuclei(case.stain)
        if all(case.others is not None for case in cases):
            recipes["nucleus_auto_masks"] = lambda case: np.asarray(case.others)
    else:
        recipes["classical, from nuclei"] = lambda case: draft_cells(
            case.stain, draft_nuclei(np.asarray(case.nuclei))
        )
        recipes["classical, alone"] = lambda case: draft_cells(case.stain)
    if peer:
        recipes["naive"] = _naive
        if importlib.util.find_spec("cellpose"):
            shows = "nuclei" if is_nuclei else "cells"
            recipes["cellpose"] = lambda case: by_cellpose(case.stain, shows)
    return recipes


def _naive(case: _Case) -> np.ndarray:
    def objects(stain: np.ndarray) -> np.ndarray:
        smooth = gaussian(stain.astype(float), 1)
        return np.asarray(label(smooth > threshold_otsu(smooth)))

    if case.nuclei is None:
        return objects(case.stain)
    smooth = gaussian(case.stain.astype(float), 1)
    return watershed(-smooth, objects(case.nuclei), mask=smooth > threshold_otsu(smooth))


def _sets() -> Iterator[tuple[str, list[_Case], bool]]:
    """Name, images, and whether the stain shows nuclei."""
    root = Path(os.environ.get("ISL_JAX_DATA", "no-such-folder"))
    for name in ("hela1", "mcf10a", "raw1", "raw2"):
        read = _reader(root / _PHASE, name)
        auto = root / _PHASE / f"{name}_nucleus_auto_masks.tif"
        others = tifffile.imread(auto) if auto.is_file() else None
        yield f"{name}, nuclei", [_Case(read("nuclei"), read("nucleus_masks"), None, others)], True
    dsb = [_reader(root / "fluorescence_nuclei", f"dsb{k:02d}") for k in range(1, 31)]
    cases = [_Case(read("nuclei"), read("nucleus_masks")) for read in dsb]
    yield "DSB, odd numbers (tuned on)", cases[::2], True
    yield "DSB, even numbers", cases[1::2], True
    for name in ("raw1", "raw2"):
        read = _reader(root / _PHASE, name)
        case = _Case(read("cytoplasm"), read("cell_masks"), read("nuclei"))
        yield f"{name}, cells", [case], False
    parameters = simulation("cell", size=_SIZE, seed=_SEED)
    fields = [simulate_field(parameters, k) for k in range(_FIELDS)]
    cases = [
        _Case(
            PROJECTIONS["focus"](f.channels["membrane"]),
            f.cells,
            PROJECTIONS["max"](f.channels["dapi"]),
        )
        for f in fields
    ]
    yield f"simulated cells ({_FIELDS} of {_SIZE}²)", cases, False


def _reader(folder: Path, name: str) -> Callable[[str], np.ndarray]:
    def read(channel: str) -> np.ndarray:
        path = folder / f"{name}_{channel}.tif"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file; set ISL_JAX_DATA to the folder of the data sets"
            )
        return tifffile.imread(path)

    return read


def _count(labels: np.ndarray) -> int:
    return len(np.setdiff1d(labels, 0))
