"""One alpha of eq. (2) for all arms of a sweep, so that they are trained for the same loss.

`auto` is the initial ratio of the two terms. The head changes it twenty-fold before anything is
learnt (HeLa: 0.07 to 0.2 with it, 2 to 4 without): left to each run, the arms would learn different
things, and their scores would compare losses.
"""

import dataclasses
from pathlib import Path

from isl_jax.files import read_json, write_json
from isl_jax.study.annotated import SUGGESTION
from isl_jax.study.experiment import initial_alpha
from isl_jax.study.settings import Experiment
from isl_jax.study.workdir import told_changes

# Its file, in the folder of the sweep.
ALPHA = "alpha.json"
# Settings that may differ between the arms, or when a sweep goes on with other N and seeds.
_OF_RUNS = ("seed", "num_annotated", "init")


@dataclasses.dataclass(frozen=True)
class SharedAlpha:
    """Where the alpha of a sweep is kept, and on which of its runs it is measured.

    That is the control: random first weights, the head of the ISL arm, the smallest N and the first
    seed. It needs no other run, so that jobs that begin side by side find the same value.
    """

    path: Path
    experiment: Experiment

    def value(self) -> float:
        """Alpha, measured and written down if it has not been for these settings."""
        settings = {k: v for k, v in self.experiment.to_json().items() if k not in _OF_RUNS}
        if self.path.exists():
            keys = {"alpha": float, "settings": dict}
            stored = read_json(self.path, remedy="delete it to measure again", keys=keys)
            if not told_changes(stored["settings"], settings):
                return float(stored["alpha"])
        alpha = initial_alpha(self.experiment, self.path.with_name(SUGGESTION))
        of = self.experiment
        measured = f"{of.init.kind} weights, head {of.head}, N = {of.num_annotated}, seed {of.seed}"
        print(f"alpha = {alpha:.4g} for all arms, measured on {measured}")
        write_json(self.path, {"alpha": alpha, "measured_on": measured, "settings": settings})
        return alpha
