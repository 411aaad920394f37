"""Choice of the marker contrast h on annotated images, since a network's maps are not true ones."""

from collections.abc import Sequence

import numpy as np

from isl_jax.instances.matching import average_precision
from isl_jax.instances.watershed import DEFAULT_H, label_batch

# Spans both scales of the distance map: a pixel's worth up to most of a normalised map's 255.
CANDIDATES = (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 100, 120, 150, 180)


def calibrate_h(
    distances: Sequence[np.ndarray],
    semantics: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    candidates: Sequence[float] = CANDIDATES,
    *,
    default: float = DEFAULT_H,
) -> float:
    """h of the highest mAP, averaged over the given annotated images.

    distances, semantics: predicted maps and masks as for `label_instances`; truths: integer
    labels; one [H, W] each an image. The default is always among the candidates, so that the
    choice is never worse on these images. Of equally good values the one in the middle of the
    longest run is taken, farthest from where the score falls. Raises ValueError without images.
    """
    if not len(distances) or not len(distances) == len(semantics) == len(truths):
        raise ValueError(
            f"calibration of h got {len(distances)} distance maps, {len(semantics)} masks and "
            f"{len(truths)} truths; expected the same number of each, at least one"
        )
    values = sorted({float(default), *map(float, candidates)})
    scores = [_mean_ap(distances, semantics, truths, h) for h in values]
    best = np.flatnonzero(np.array(scores) == max(scores))
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    longest = max(runs, key=len)
    return values[longest[len(longest) // 2]]


def _mean_ap(
    distances: Sequence[np.ndarray],
    semantics: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    h: float,
) -> float:
    labels = label_batch(distances, semantics, h=h)
    return float(
        np.mean([average_precision(t, p).mean() for t, p in zip(truths, labels, strict=True)])
    )
