"""ISL against a baseline, the paper's or the fair one: what differs, and how surely."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from isl_jax.metrics import mean_std
from isl_jax.report.statistics import Interval, crossed_interval, paired_test, relative_gain

# paper: the baseline has no head where the ISL arm of a cell study has one. fair: the same network
# in both arms, so that nothing but the first weights differs.
Contrast = Literal["paper", "fair"]
# The fair one first: it tells of the pretraining alone.
CONTRASTS: tuple[Contrast, ...] = ("fair", "paper")
# Score of an image (its field, its seed): those of a field are averaged over its crops.
Scores = Mapping[tuple[str, int], float]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """ISL against the arm `baseline` at one N; `p` is Holm-corrected over the N of the study.

    `gain` is that of the means over images and seeds. `difference`, `interval` (95 %) and `p` are
    of the seeds that both arms have, and take fields as observations, averaged over their crops,
    because crops of one field are not independent. The interval draws fields and seeds anew; p is
    of the means over seeds.
    """

    contrast: Contrast
    baseline: str
    n: int
    gain: float
    difference: float
    interval: Interval
    p: float
    num_fields: int
    num_seeds: int


def compare(
    contrast: Contrast,
    baseline: str,
    n: int,
    means: tuple[float, float],
    isl: Scores,
    other: Scores,
) -> Comparison:
    """Compare the scores of two arms; `means` (of ISL, of the other) are over all their images."""
    both = isl.keys() & other.keys()
    fields = sorted({field for field, _ in both})
    seeds = sorted({seed for _, seed in both})

    def grid(scores: Scores) -> np.ndarray:
        rows = [[scores[f, s] if (f, s) in both else np.nan for s in seeds] for f in fields]
        return np.array(rows, np.float64).reshape(len(fields), len(seeds))

    with_isl, without = grid(isl), grid(other)
    by_field = [mean_std(row).mean for row in with_isl - without]
    return Comparison(
        contrast=contrast,
        baseline=baseline,
        n=n,
        gain=relative_gain(*means),
        difference=mean_std(by_field).mean,
        interval=crossed_interval(with_isl - without),
        p=paired_test(
            [mean_std(row).mean for row in with_isl], [mean_std(row).mean for row in without]
        ),
        num_fields=len(fields),
        num_seeds=len(seeds),
    )
