"""Everything about a study as CSV: all comparisons, every score of every run."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isl_jax.report.results import Study
from isl_jax.report.runs import OVERS, Scored
from isl_jax.study.records import ISL
from isl_jax.tabular import write_csv

_COMPARED_COLUMNS = (
    *("comparison", "gain", "difference", "interval_low", "interval_high", "p_holm"),
    "fields_compared",
)
_SUMMARY_COLUMNS = ("over", "n", "arm", "mean", "std", "images", *_COMPARED_COLUMNS)


def write_tables(study: Study, folder: Path, name: str) -> None:
    """Write `<name>_{summary,crops,fields}.csv`: all comparisons, every score of every run."""
    write_csv(folder / f"{name}_summary.csv", _SUMMARY_COLUMNS, _summary_rows(study))
    for over in OVERS:
        arms: list[tuple[dict[str, Any], Scored]] = [
            *(({"arm": run.arm, "n": run.n, "seed": run.seed}, run) for run in study.done),
            *(({"arm": other.name, "n": "", "seed": ""}, other) for other in study.others),
        ]
        rows = [arm | row for arm, run in arms for row in run.rows[over]]
        columns = list(rows[0]) if rows else ["arm"]
        write_csv(folder / f"{name}_{over}.csv", columns, ([r[c] for c in columns] for r in rows))


def _summary_rows(study: Study) -> Iterator[list[Any]]:
    """Scores of every arm; below them what each comparison of ISL says."""
    nothing = [""] * len(_COMPARED_COLUMNS)
    for over in OVERS:
        if study.pretext:
            yield [over, 0, "pretext_pcc", *dataclasses.astuple(study.pcc[over]), *nothing]
        for n in study.n:
            for arm in study.arms:
                yield [over, n, arm, *dataclasses.astuple(study.score(arm, n, over)), *nothing]
        for contrast, found in study.comparisons.items():
            for c in found[over]:
                score = dataclasses.astuple(study.score(ISL, c.n, over))
                told = [c.gain, c.difference, c.interval.low, c.interval.high, c.p, c.num_fields]
                yield [over, c.n, f"{ISL} − {c.baseline}", *score, contrast, *told]
        for other in study.others:
            score = dataclasses.astuple(other.score(study.metric, over))
            yield [over, "", other.name, *score, *nothing]
