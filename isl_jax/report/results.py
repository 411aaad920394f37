"""The runs of a sweep, compared arm against arm."""

import dataclasses
import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from isl_jax.metrics import Score, mean_std
from isl_jax.report.statistics import (
    Interval,
    annotations_needed,
    bootstrap_interval,
    holm,
    paired_test,
    relative_gain,
)
from isl_jax.study.records import ISL, Row, read_metrics

Over = Literal["crops", "fields"]
OVERS: tuple[Over, ...] = ("crops", "fields")
# The arm that ISL is compared with, the paper's own first.
_BASELINES = ("imagenet", "random")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep and its scores by image; `status` tells why there are none."""

    init: str
    n: int
    seed: int
    workdir: Path
    status: Literal["done", "failed", "unfinished", "missing"]
    reason: str = ""
    rows: Mapping[Over, list[Row]] = dataclasses.field(default_factory=dict)

    def stored(self, name: str) -> dict[str, Any]:
        """One of the run's JSON files, empty when there is none."""
        path = self.workdir / name
        return json.loads(path.read_text()) if path.exists() else {}

    def losses(self) -> list[tuple[int, float]]:
        """Training loss by step, as far as it was recorded."""
        return [
            (record["step"], record["loss"])
            for record in read_metrics(self.workdir)
            if record.get("split") == "train" and "loss" in record
        ]


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
    """A sweep: its grid, its runs and the pretext run that the ISL arm starts from.

    `others` are scored label images of other programs; the name of each is its `init`.
    """

    workdir: Path
    study: str
    n: tuple[int, ...]
    inits: tuple[str, ...]
    seeds: tuple[int, ...]
    data_root: Path
    stand_in: str
    runs: tuple[Run, ...]
    pretext: Run | None
    others: tuple[Run, ...] = ()

    @property
    def metric(self) -> Literal["iou", "map"]:
        """The score that the study is judged by."""
        return "iou" if self.study == "nucleus" else "map"

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
    def holes(self) -> list[Run]:
        """Runs of the grid, and the pretext run, that have no scores."""
        return [run for run in (self.pretext, *self.runs) if run and run.status != "done"]

    def of(self, init: str, n: int) -> list[Run]:
        """Scored runs of one cell of the grid."""
        return [run for run in self.done if (run.init, run.n) == (init, n)]

    def values(self, init: str, n: int, over: Over) -> list[float]:
        """Scores of all images of all seeds."""
        return [row[self.metric] for run in self.of(init, n) for row in run.rows[over]]

    def score(self, init: str, n: int, over: Over) -> Score:
        """Mean ± std over images and seeds."""
        return mean_std(self.values(init, n, over))

    def run_means(self, init: str, n: int, over: Over) -> list[float]:
        """Mean score of each run of one cell of the grid."""
        return [mean_std([r[self.metric] for r in run.rows[over]]).mean for run in self.of(init, n)]

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
            (run.init, run.seed): mean_std([row[self.metric] for row in run.rows[over]]).mean
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

    def other_score(self, other: Run, over: Over) -> Score:
        """Mean ± std over images of another program's label images."""
        return mean_std([row[self.metric] for row in other.rows[over]])

    def annotations_to_reach(self, score: float, over: Over) -> float | None:
        """Annotated images with which ISL reaches `score`; None if it does not."""
        return annotations_needed(self.n, [self.score(ISL, m, over).mean for m in self.n], score)

    @cached_property
    def pcc(self) -> Mapping[Over, Score]:
        """How well the stain is predicted, over crops and over fields."""
        rows = self.pretext.rows if self.pretext else {}
        return {over: mean_std([row["pcc"] for row in rows.get(over, [])]) for over in OVERS}
