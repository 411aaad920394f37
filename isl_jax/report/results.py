"""A sweep, read from its folder, and its arms compared."""

import dataclasses
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from isl_jax.metrics import Score, mean_std
from isl_jax.report.runs import (
    OVERS,
    Over,
    Program,
    Run,
    Scored,
    check_same_crops,
    read_programs,
    read_run,
    read_scored,
)
from isl_jax.report.statistics import (
    Interval,
    annotations_needed,
    bootstrap_interval,
    holm,
    paired_test,
    relative_gain,
)
from isl_jax.study.records import ISL, SWEEP, read_sweep
from isl_jax.task import METRICS, Kind, Metric, kind_of_study

# The arm that ISL is compared with, the paper's own first.
_BASELINES = ("imagenet", "random")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """ISL against the baseline at one N; `p` is Holm-corrected over the N of the study.

    Means and standard deviations are over images and seeds. `difference`, `interval` (95 %) and `p`
    take each field as one observation, averaged over its crops and over the seeds that both arms
    have, because crops of one field are not independent.
    """

    n: int
    scores: Mapping[str, Score]
    gain: float
    difference: float
    interval: Interval
    p: float
    num_fields: int


@dataclasses.dataclass(frozen=True)
class Study:
    """A sweep: its grid, its runs, the pretext run that the ISL arm starts from, other programs."""

    workdir: Path
    study: str
    n: tuple[int, ...]
    inits: tuple[str, ...]
    seeds: tuple[int, ...]
    data_root: Path
    stand_in: str
    runs: tuple[Run, ...]
    pretext: Scored | None
    others: tuple[Program, ...] = ()

    @property
    def metric(self) -> Metric:
        """The score that the study is judged by."""
        return METRICS[kind_of_study(self.study)]

    @property
    def baseline(self) -> str | None:
        """The arm without ISL: imagenet as in the paper, else random; None if there is none."""
        return next((init for init in _BASELINES if init in self.inits), None)

    @property
    def done(self) -> list[Run]:
        """Runs of the grid that have scores."""
        return [run for run in self.runs if run.status == "done"]

    @property
    def pretext_init(self) -> str | None:
        """Where the pretext network itself started: random or imagenet."""
        return self.pretext and self.pretext.stored("config.json").get("init", {}).get("kind")

    def num_images(self, over: Over) -> int:
        """Crops or fields that each run is tested on; 0 before any has been."""
        return max((len(run.rows[over]) for run in self.done), default=0)

    @property
    def holes(self) -> list[Scored]:
        """Runs of the grid, and the pretext run, that have no scores."""
        return [run for run in (self.pretext, *self.runs) if run and run.status != "done"]

    def of(self, init: str, n: int) -> list[Run]:
        """Scored runs of one cell of the grid."""
        return [run for run in self.done if (run.init, run.n) == (init, n)]

    def values(self, init: str, n: int, over: Over) -> list[float]:
        """Scores of all images of all seeds."""
        return [value for run in self.of(init, n) for value in run.values(self.metric, over)]

    def score(self, init: str, n: int, over: Over) -> Score:
        """Mean ± std over images and seeds."""
        return mean_std(self.values(init, n, over))

    def run_means(self, init: str, n: int, over: Over) -> list[float]:
        """Mean score of each run of one cell of the grid."""
        return [run.score(self.metric, over).mean for run in self.of(init, n)]

    def by_field(
        self, init: str, n: int, over: Over, *, seeds: set[int] | None = None
    ) -> dict[str, float]:
        """Score of each field, averaged over its crops (if `over` crops) and over seeds."""
        found: dict[str, list[float]] = {}
        for run in self.of(init, n):
            if seeds is None or run.seed in seeds:
                for row in run.rows[over]:
                    found.setdefault(row["field"], []).append(row[self.metric])
        return {name: mean_std(values).mean for name, values in found.items()}

    @cached_property
    def comparisons(self) -> Mapping[Over, list[Comparison]]:
        """ISL against the baseline at every N, over crops and over fields."""
        found: dict[Over, list[Comparison]] = {}
        for over in OVERS:
            compared = [self._compare(n, over) for n in self.n]
            corrected = holm([c.p for c in compared])
            found[over] = [
                dataclasses.replace(c, p=p) for c, p in zip(compared, corrected, strict=True)
            ]
        return found

    def _compare(self, n: int, over: Over) -> Comparison:
        scores = {init: self.score(init, n, over) for init in self.inits}
        nothing = Interval(math.nan, math.nan)
        if self.baseline is None or ISL not in self.inits:
            return Comparison(n, scores, math.nan, math.nan, nothing, math.nan, 0)
        seeds = {r.seed for r in self.of(ISL, n)} & {r.seed for r in self.of(self.baseline, n)}
        isl = self.by_field(ISL, n, over, seeds=seeds)
        baseline = self.by_field(self.baseline, n, over, seeds=seeds)
        common = sorted(isl.keys() & baseline.keys())
        differences = [isl[name] - baseline[name] for name in common]
        return Comparison(
            n=n,
            scores=scores,
            gain=relative_gain(scores[ISL].mean, scores[self.baseline].mean),
            difference=mean_std(differences).mean,
            interval=bootstrap_interval(differences),
            p=paired_test([isl[f] for f in common], [baseline[f] for f in common]),
            num_fields=len(common),
        )

    def seed_differences(self, n: int, over: Over) -> dict[int, float]:
        """Mean score of ISL minus that of the baseline for each seed that both have."""
        means = {
            (run.init, run.seed): run.score(self.metric, over).mean
            for run in self.done
            if run.n == n
        }
        return {
            seed: means[ISL, seed] - means[str(self.baseline), seed]
            for seed in self.seeds
            if (ISL, seed) in means and (str(self.baseline), seed) in means
        }

    def annotations_needed(self, n: int, over: Over) -> float | None:
        """Annotated images with which the baseline reaches what ISL reaches with `n`."""
        if self.baseline is None:
            return None
        means = [self.score(self.baseline, m, over).mean for m in self.n]
        return annotations_needed(self.n, means, self.score(ISL, n, over).mean)

    def annotations_to_reach(self, score: float, over: Over) -> float | None:
        """Annotated images with which ISL reaches `score`; None if it does not."""
        return annotations_needed(self.n, [self.score(ISL, m, over).mean for m in self.n], score)

    @cached_property
    def pcc(self) -> Mapping[Over, Score]:
        """How well the stain is predicted, over crops and over fields."""
        pcc = METRICS[Kind.STAIN]
        return {
            over: self.pretext.score(pcc, over) if self.pretext else mean_std([]) for over in OVERS
        }


def find_studies(workdir: Path) -> list[Study]:
    """Read one sweep, or every sweep in the folder `workdir`.

    Raises FileNotFoundError or ValueError if there is none, its description is damaged, or its
    runs were scored on different crops.
    """
    folders = [workdir] if (workdir / SWEEP).exists() else []
    folders = folders or sorted(path.parent for path in workdir.glob(f"*/{SWEEP}"))
    if not folders:
        raise FileNotFoundError(
            f"{workdir}: no sweep here (no {SWEEP} in it or in a folder of it); "
            "name the --workdir of isl-sweep"
        )
    # Nuclei before cells, as in the paper.
    return sorted(
        (_read_study(f) for f in folders), key=lambda s: (s.study != "nucleus", s.workdir)
    )


def _read_study(workdir: Path) -> Study:
    try:
        study = _study_from(read_sweep(workdir), workdir)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{workdir / SWEEP}: damaged ({error!r}); run the sweep again to write it"
        ) from error
    # The pretext run is compared with nothing.
    check_same_crops([*study.done, *study.others])
    return study


def _study_from(stored: Mapping[str, Any], workdir: Path) -> Study:
    runs = tuple(
        read_run(workdir, init, n, seed)
        for n in sorted(stored["n"])
        for seed in stored["seeds"]
        for init in stored["inits"]
    )
    return Study(
        workdir=workdir,
        study=stored["study"],
        n=tuple(sorted(stored["n"])),
        inits=tuple(stored["inits"]),
        seeds=tuple(stored["seeds"]),
        data_root=Path(stored["data_root"]),
        stand_in=str((stored.get("imagenet_stand_in") or {}).get("reason", "")),
        runs=runs,
        pretext=_pretext(workdir, runs) if ISL in stored["inits"] else None,
        others=read_programs(workdir),
    )


def _pretext(workdir: Path, runs: tuple[Run, ...]) -> Scored:
    # A sweep may start from a pretext run that lies elsewhere; its ISL runs know where.
    for run in runs:
        checkpoint = run.stored("config.json").get("init", {}).get("checkpoint")
        if run.init == ISL and checkpoint:
            return read_scored(Path(checkpoint))
    return read_scored(workdir / "pretrain")
