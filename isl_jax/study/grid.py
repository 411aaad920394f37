"""What a sweep varies: numbers of annotated images, seeds, and the arms that are compared."""

import dataclasses
from typing import Literal

from isl_jax.models.heads import Head
from isl_jax.study.records import ISL, control_of

# Which baselines ISL is compared with: the paper's, without the head that ISL carries; its control,
# the same network as ISL's; or both.
Comparison = Literal["paper", "fair", "both"]
COMPARISONS: tuple[Comparison, ...] = ("paper", "fair", "both")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One kind of run: where the first weights come from, and what stands after the U-Net."""

    name: str
    init: str
    head: Head


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is varied: numbers of annotated images, origins of the weights, seeds."""

    n: tuple[int, ...]
    inits: tuple[str, ...]
    seeds: tuple[int, ...]
    comparison: Comparison = "both"

    def arms(self, head: Head) -> tuple[Arm, ...]:
        """The arms, where ISL carries `head`: each baseline without it, with it, or both.

        Without a head all arms are one network anyway.
        """
        found = []
        for init in self.inits:
            if init == ISL or head == "none":
                found.append(Arm(init, init, head))
                continue
            if self.comparison != "fair":
                found.append(Arm(init, init, "none"))
            if self.comparison != "paper":
                found.append(Arm(control_of(init), init, head))
        return tuple(found)

    def runs(self, head: Head) -> list[tuple[Arm, int, int]]:
        """All (arm, n, seed), the small N first: they answer the question of the study."""
        arms = self.arms(head)
        return [(arm, n, seed) for n in self.n for seed in self.seeds for arm in arms]
