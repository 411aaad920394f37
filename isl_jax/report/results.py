"""A sweep, read from its folder, and its arms compared."""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from isl_jax.metrics import Score, mean_std
from isl_jax.report.comparison import CONTRASTS, Comparison, Contrast, compare
from isl_jax.report.runs import (
    OVERS,
    Over,
    Program,
    Run,
    Scored,
    check_same_crops,
    check_same_tta,
    read_programs,
    read_run,
    read_scored,
)
from isl_jax.report.statistics import annotations_needed, holm
from isl_jax.study.records import ISL, SWEEP, control_of, read_sweep
from isl_jax.task import METRICS, Kind, Metric, kind_of_study

# Where the weights of the arms that ISL is compared with come from, the paper's own first.
_BASELINES = ("imagenet", "random")


@dataclasses.dataclass(frozen=True)
class Study:
    """A sweep: its grid, its runs, the pretext run that the ISL arm starts from, other programs.

    `arms` are named as in the folders of the runs; `head` stands after the U-Net of the ISL arm and
    of the controls.
    """

    workdir: Path
    study: str
    n: tuple[int, ...]
    arms: tuple[str, ...]
    head: str
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
    def baselines(self) -> Mapping[Contrast, str]:
        """The arm without ISL of each comparison that can be made: from imagenet, else random.

        Where no arm has a head, the paper's comparison is a fair one.
        """
        found: dict[Contrast, str] = {}
        for contrast in CONTRASTS:
            named = control_of if contrast == "fair" and self.has_head else str
            if contrast == "paper" and not self.has_head:
                continue
            arms = [arm for init in _BASELINES if (arm := named(init)) in self.arms]
            if arms:
                found[contrast] = arms[0]
        return found

    @property
    def baseline(self) -> str | None:
        """The arm that ISL is shown against: that of the fair comparison, else of the paper's."""
        return next(iter(self.baselines.values()), None)

    @property
    def has_head(self) -> bool:
        """Whether the ISL arm has a head, which the paper's baseline lacks."""
        return self.head != "none"

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

    def of(self, arm: str, n: int) -> list[Run]:
        """Scored runs of one cell of the grid."""
        return [run for run in self.done if (run.arm, run.n) == (arm, n)]

    def values(self, arm: str, n: int, over: Over) -> list[float]:
        """Scores of all images of all seeds."""
        return [value for run in self.of(arm, n) for value in run.values(self.metric, over)]

    def score(self, arm: str, n: int, over: Over, metric: str | None = None) -> Score:
        """Mean ± std over images and seeds, of the study's own metric or of another."""
        runs, name = self.of(arm, n), metric or self.metric
        return mean_std([value for run in runs for value in run.values(name, over)])

    def run_means(self, arm: str, n: int, over: Over) -> list[float]:
        """Mean score of each run of one cell of the grid."""
        return [run.score(self.metric, over).mean for run in self.of(arm, n)]

    def by_field(
        self, arm: str, n: int, over: Over, *, seeds: set[int] | None = None
    ) -> dict[str, float]:
        """Score of each field, averaged over its crops (if `over` crops) and over seeds."""
        found: dict[str, list[float]] = {}
        for run in self.of(arm, n):
            if seeds is None or run.seed in seeds:
                for row in run.rows[over]:
                    found.setdefault(row["field"], []).append(row[self.metric])
        return {name: mean_std(values).mean for name, values in found.items()}

    @cached_property
    def comparisons(self) -> Mapping[Contrast, Mapping[Over, list[Comparison]]]:
        """ISL against each baseline at every N, over crops and over fields."""
        found: dict[Contrast, Mapping[Over, list[Comparison]]] = {}
        for contrast, baseline in self.baselines.items() if ISL in self.arms else ():
            of_contrast: dict[Over, list[Comparison]] = {}
            for over in OVERS:
                compared = [self._compare(contrast, baseline, n, over) for n in self.n]
                corrected = holm([c.p for c in compared])
                of_contrast[over] = [
                    dataclasses.replace(c, p=p) for c, p in zip(compared, corrected, strict=True)
                ]
            found[contrast] = of_contrast
        return found

    def _compare(self, contrast: Contrast, baseline: str, n: int, over: Over) -> Comparison:
        means = (self.score(ISL, n, over).mean, self.score(baseline, n, over).mean)
        isl, other = (self._by_field_and_seed(arm, n, over) for arm in (ISL, baseline))
        return compare(contrast, baseline, n, means, isl, other)

    def _by_field_and_seed(self, arm: str, n: int, over: Over) -> dict[tuple[str, int], float]:
        return {
            (field, run.seed): score
            for run in self.of(arm, n)
            for field, score in self.by_field(arm, n, over, seeds={run.seed}).items()
        }

    def seed_differences(self, baseline: str, n: int, over: Over) -> dict[int, float]:
        """Mean score of ISL minus that of the baseline for each seed that both have."""
        isl, other = (
            {run.seed: run.score(self.metric, over).mean for run in self.of(arm, n)}
            for arm in (ISL, baseline)
        )
        return {seed: isl[seed] - other[seed] for seed in self.seeds if seed in isl.keys() & other}

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
    check_same_tta(study.done)
    return study


def _study_from(stored: Mapping[str, Any], workdir: Path) -> Study:
    # Before there were controls, an init was an arm, and only ISL networks had a head.
    arms = tuple(stored.get("arms", stored["inits"]))
    head = "paper" if kind_of_study(stored["study"]) == Kind.INSTANCES else "none"
    runs = tuple(
        read_run(workdir, arm, n, seed)
        for n in sorted(stored["n"])
        for seed in stored["seeds"]
        for arm in arms
    )
    return Study(
        workdir=workdir,
        study=stored["study"],
        n=tuple(sorted(stored["n"])),
        arms=arms,
        head=stored.get("head", head),
        seeds=tuple(stored["seeds"]),
        data_root=Path(stored["data_root"]),
        stand_in=str((stored.get("imagenet_stand_in") or {}).get("reason", "")),
        runs=runs,
        pretext=_pretext(workdir, runs) if ISL in arms else None,
        others=read_programs(workdir),
    )


def _pretext(workdir: Path, runs: tuple[Run, ...]) -> Scored | None:
    # A sweep may start from a pretext run that lies elsewhere; its ISL runs know where.
    for run in runs:
        checkpoint = run.stored("config.json").get("init", {}).get("checkpoint")
        if run.arm == ISL and checkpoint:
            # Exported weights bring no scores along.
            found = read_scored(Path(checkpoint))
            return found if found.status == "done" or found.stored("config.json") else None
    return read_scored(workdir / "pretrain")
