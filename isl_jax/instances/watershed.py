"""Distance map and semantic mask to instance labels: h-maxima markers, then watershed."""

import numpy as np
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import relabel_sequential, watershed

# Default h of a normalised (0..255) distance map.
DEFAULT_H = 60.0


def label_instances(distance: np.ndarray, semantic: np.ndarray, *, h: float = 10.0) -> np.ndarray:
    """Instance labels from a distance map and a semantic mask (section 2.3)."""
    mask = semantic > 0.5
    maxima = local_maxima(reconstruction(distance - h, distance), connectivity=2)
    labels = watershed(-distance, label(maxima, connectivity=2), mask=mask)
    return relabel_sequential(labels)[0].astype(np.int32)


def calibrate_h(
    distances, semantics, truths, candidates=(1, 2, 3, 5, 10, 15, 20, 30, 40, 60, 80, 120)
):
    """h of the highest mean mAP on given maps and truths."""
    from isl_jax.instances.matching import average_precision

    def score(h):
        return np.mean(
            [
                average_precision(truth, label_instances(d, s, h=h)).mean()
                for d, s, truth in zip(distances, semantics, truths, strict=True)
            ]
        )

    return float(max(candidates, key=score))
