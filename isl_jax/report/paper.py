"""Published results of Bonte et al. 2023 (arXiv 2301.03914, section 3), to stand beside ours."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Published:
    """What the paper reports for a study (section 3): (mean, std), and gains by N."""

    pcc: tuple[float, float]
    baseline: tuple[float, float]
    isl: tuple[float, float]
    gains: Mapping[int, float]


PAPER: Mapping[str, Published] = {
    "nucleus": Published(
        pcc=(0.95, 0.08),
        baseline=(0.64, 0.2),
        isl=(0.84, 0.1),
        gains={1: 0.313, 10: 0.048, 50: 0.011, 100: 0.0, 200: 0.0, 500: -0.011},
    ),
    "cell": Published(
        pcc=(0.97, 0.02),
        baseline=(0.17, 0.1),
        isl=(0.33, 0.09),
        gains={1: 0.941, 10: 0.185, 50: -0.030, 80: -0.029},
    ),
}
