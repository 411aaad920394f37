"""What the representation can reach: true labels → distance map → instances → mAP on real masks.

Reads the data sets in the folder that ISL_JAX_DATA names (`<set>/<field>_<channel>_masks.tif`).
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from skimage.measure import label

from isl_jax.data.targets import distance_map
from isl_jax.instances.calibration import calibrate_instances
from isl_jax.instances.matching import Match, match
from isl_jax.instances.overlap import overlap
from isl_jax.instances.watershed import DEFAULT_H, label_batch
from isl_jax.task import DISTANCE_PEAKS, DistancePeaks, DistanceScale

# Hand-drawn instance masks: set → file names.
_MASKS = {
    "HeLa and others (phase)": "phase_hela_and_others/*_cell_masks.tif",
    "HeLa (DIC)": "dic_hela/*_cell_masks.tif",
    "T98G (phase)": "phase_t98g/*_cell_masks.tif",
    "DSB nuclei (fluorescence)": "fluorescence_nuclei/*_nucleus_masks.tif",
}
_Rule = tuple[str, DistanceScale, DistancePeaks, float]
# Name → scale and peaks of the distance map, and the marker contrast h that goes with it.
RULES: dict[str, tuple[DistanceScale, DistancePeaks, float]] = {
    "paper": ("pixels", "all", 10.0),  # section 2.3
    # Its code takes the h-maxima (20) of a reconstruction (10).
    "reference": ("normalised", "all", 30.0),
    # Holds for any cell size; a network's own maps need h calibrated on them.
    "default": ("normalised", "single", DEFAULT_H),
}
# With one peak a cell h hardly matters: shown beside the map that has all of them.
CONTRASTS = (10.0, 60.0, 100.0)


def main(*, peer: bool) -> dict:
    """Print the ceiling of every rule and of the calibrated h on every set.

    mAP is the mean over images. split: cells that hold two or more predicted objects; lost: cells
    that hold none (a predicted object is held by the cell it overlaps most). Raises
    FileNotFoundError without the data.
    """
    del peer
    root = Path(os.environ.get("ISL_JAX_DATA", ""))
    figures = {}
    print(
        f"{'set':<27}{'rule':<11}{'scale':<12}{'peaks':<8}{'h':>5}{'mAP':>8}{'worst':>8}  "
        "cells → found"
    )
    for name, pattern in _MASKS.items():
        paths = sorted(root.glob(pattern)) if "ISL_JAX_DATA" in os.environ else []
        if not paths:
            raise FileNotFoundError(
                f"{root / pattern}: no masks found; set ISL_JAX_DATA to the folder of the data sets"
            )
        # As isl-prepare asks for: each connected piece is a cell.
        truths = [np.asarray(label(tifffile.imread(path), connectivity=2)) for path in paths]
        figures[name] = rows = _ceiling(truths)
        for row in rows:
            print(
                f"{name:<27}{row['rule']:<11}{row['scale']:<12}{row['peaks']:<8}{row['h']:>5.4g}"
                f"{row['map']:>8.4f}{row['worst_image']:>8.4f}  {row['cells']} → {row['found']}"
                f" (split {row['split']}, lost {row['lost']})",
                flush=True,
            )
    return figures


def _ceiling(truths: Sequence[np.ndarray]) -> list[dict]:
    masks = [truth > 0 for truth in truths]
    rules = _fixed_rules()
    maps: dict[tuple[DistanceScale, DistancePeaks], list[np.ndarray]] = {}
    for _, scale, peaks, _ in rules:
        if (scale, peaks) not in maps:
            maps[scale, peaks] = [distance_map(truth, scale, peaks) for truth in truths]
    for start in ("default", "paper"):
        scale, peaks, default = RULES[start]
        given = {"sigma": 0.0, "threshold": 0.5, "min_size": 0}
        sure = [mask.astype(np.float32) for mask in masks]
        reading = calibrate_instances(
            maps[scale, peaks],
            sure,
            truths,
            given=given,
            contrasts=(1, 2, 3, 5, default, *CONTRASTS),
        )
        rules.append(("auto", scale, peaks, reading.h))
    rows = []
    for rule, scale, peaks, h in rules:
        found = list(label_batch(maps[scale, peaks], masks, h=h))
        scores = [match(truth, labels) for truth, labels in zip(truths, found, strict=True)]
        split, lost = np.sum([_held(*pair) for pair in zip(truths, found, strict=True)], axis=0)
        rows.append(
            {
                "rule": rule,
                "scale": scale,
                "peaks": peaks,
                "h": h,
                "map": float(np.mean([s.mean_ap for s in scores])),
                "worst_image": min(s.mean_ap for s in scores),
                "cells": sum(_count(s)[0] for s in scores),
                "found": sum(_count(s)[1] for s in scores),
                "split": int(split),
                "lost": int(lost),
            }
        )
    return rows


def _fixed_rules() -> list[_Rule]:
    rules: list[_Rule] = [(name, *rule) for name, rule in RULES.items()]
    for peaks in DISTANCE_PEAKS:
        for h in CONTRASTS:
            rules.append(("", "normalised", peaks, h))
    return rules


def _count(scores: Match) -> tuple[int, int]:
    return int(scores.tp[0] + scores.fn[0]), int(scores.tp[0] + scores.fp[0])


def _held(truth: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    """Number of true cells that hold several predicted objects, and of those that hold none."""
    table = overlap(truth, labels)
    order = np.lexsort((-table.area, table.pred_index))
    first = order[np.unique(table.pred_index[order], return_index=True)[1]]
    held = np.bincount(table.true_index[first], minlength=len(table.true_ids))
    return int((held > 1).sum()), int((held == 0).sum())
