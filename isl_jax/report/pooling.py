"""Sweeps that repeat one question on other annotated images and data sets, pooled into one answer.

Each sweep has its own annotated images and pretext and is tested on other fields. Pooled, every
field counts once, however many sweeps test it, and fields of the same cells count as one.
"""

import dataclasses
import glob
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.data.description import read_description
from isl_jax.metrics import mean_std
from isl_jax.report.results import Study, find_studies
from isl_jax.report.runs import Scored
from isl_jax.report.statistics import Interval, hierarchical_interval, holm, paired_test
from isl_jax.report.wording import arm_name, interval_text, p_text, signed
from isl_jax.study.records import ISL, SWEEP
from isl_jax.tabular import write_csv

# A unit (its data set, its group of fields), and a run (its sweep, its seed).
Unit = tuple[str, str]
RunId = tuple[str, int]
Scores = Mapping[tuple[Unit, RunId], float]
# Beside the sweeps.
POOLED = "pooled.csv"
_RUN = re.compile(r"(.+)_n(\d+)_seed(\d+)")


@dataclasses.dataclass(frozen=True)
class Pooled:
    """ISL against another arm, or program, at one N, over all units that both were tested on.

    `mean` and `other_mean` are of these units and runs; `interval` (95 %) and `p_bootstrap` draw
    units, sweeps and seeds anew; `p` is Wilcoxon's over the units, Holm-corrected over all rows.
    """

    other: str
    n: int
    mean: float
    other_mean: float
    difference: float
    interval: Interval
    p_bootstrap: float
    p: float
    num_units: int
    num_runs: int


def pool(workdir: Path) -> list[Pooled]:
    """Compare ISL with every other arm and program of all sweeps in `workdir`, however deep.

    Raises FileNotFoundError or ValueError if there is none, or they are of different scores.
    """
    # Path.rglob does not go through links.
    found = glob.iglob(f"**/{SWEEP}", root_dir=workdir, recursive=True)  # noqa: PTH207
    folders = sorted({(workdir / path).resolve().parent for path in found})
    studies = [s for f in folders for s in find_studies(f)] or find_studies(workdir)
    metrics = {study.metric for study in studies}
    if len(metrics) > 1:
        raise ValueError(
            f"{workdir}: holds sweeps scored by {' and '.join(sorted(metrics))}, which cannot be "
            "pooled; name a folder with the sweeps of one study"
        )
    found = pooled_scores(studies)
    isl = {n: scores for (arm, n), scores in found.items() if arm == ISL}
    rows = [
        compared
        for (arm, n), scores in sorted(found.items(), key=lambda item: (item[0][1], item[0][0]))
        if arm != ISL and n in isl and (compared := _compare(arm, n, isl[n], scores))
    ]
    corrected = holm([row.p for row in rows])
    return [dataclasses.replace(row, p=p) for row, p in zip(rows, corrected, strict=True)]


def pooled_scores(studies: Sequence[Study]) -> dict[tuple[str, int], Scores]:
    """(arm, N) → the score of each unit in each run, fields of a unit averaged."""
    collected: dict[Any, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
    for study in studies:
        units, sweep = _units(study), str(study.workdir.resolve())
        for arm, n, seed, run in _runs(study):
            for row in run.rows["fields"]:
                unit = units.get(row["field"], (str(study.data_root), row["field"]))
                collected[arm, n][unit, (sweep, seed)].append(row[study.metric])
    return {
        key: {cell: mean_std(values).mean for cell, values in cells.items()}
        for key, cells in collected.items()
    }


def _runs(study: Study) -> Iterator[tuple[str, int, int, Scored]]:
    for run in study.done:
        yield run.arm, run.n, run.seed, run
    for other in study.others:  # launch/benchmarks/peers.py names them as runs are named
        if (match := _RUN.fullmatch(other.name)) and other.status == "done":
            yield match[1], int(match[2]), int(match[3]), other


def _units(study: Study) -> dict[str, Unit]:
    """Field → its unit. Data sets prepared from one folder of raw images are one data set."""
    record = read_description(study.data_root)
    source = str(record.get("source", study.data_root))
    return {entry["name"]: (source, entry["group"]) for entry in record["fields"]}


def _compare(arm: str, n: int, isl: Scores, other: Scores) -> Pooled | None:
    both = isl.keys() & other.keys()
    if not both:
        return None
    units, runs = sorted({unit for unit, _ in both}), sorted({run for _, run in both})

    def grid(scores: Scores) -> np.ndarray:
        rows = [[scores[u, r] if (u, r) in both else np.nan for r in runs] for u in units]
        return np.array(rows, np.float64).reshape(len(units), len(runs))

    with_isl, without = grid(isl), grid(other)
    means = [[mean_std(row).mean for row in one] for one in (with_isl, without)]
    interval, p_bootstrap = hierarchical_interval(
        with_isl - without, [sweep for sweep, _ in runs], [name for name, _ in units]
    )
    mean, other_mean = (mean_std(values).mean for values in means)
    return Pooled(
        other=arm,
        n=n,
        mean=mean,
        other_mean=other_mean,
        difference=mean - other_mean,
        interval=interval,
        p_bootstrap=p_bootstrap,
        p=paired_test(*means),
        num_units=len(units),
        num_runs=len(runs),
    )


def pooled_table(rows: Sequence[Pooled]) -> str:
    """The rows as text, and what they can tell at best."""
    if not rows:
        return "nothing to pool: no sweep has scores of ISL and of another arm on the same fields"
    head = "  N  ISL    other  difference (95 % interval)       p (units, runs)"
    width = max(11, *(len(arm_name(row.other)) for row in rows))
    lines = [f"{'ISL against':{width}} {head}"]
    for row in rows:
        told = f"{signed(row.difference)} ({interval_text(row.interval)})"
        counts = f"{p_text(row.p)} ({row.num_units}, {row.num_runs})"
        means = f"{row.mean:.3f}  {row.other_mean:.3f}"
        lines.append(f"{arm_name(row.other):{width}} {row.n:3}  {means}  {told:32} {counts}")
    fewest = min(row.num_units for row in rows)
    lines.append(
        "Means over units: whole fields, those of the same cells as one. Interval: units, sweeps "
        "and seeds drawn anew. p: Wilcoxon signed-rank over units, Holm-corrected; with "
        f"{fewest} units none can be below {2.0 ** (1 - fewest):.2g}."
    )
    return "\n".join(lines)


def write_pooled(path: Path, rows: Sequence[Pooled]) -> None:
    """Write the rows as CSV."""
    columns = [field.name for field in dataclasses.fields(Pooled) if field.name != "interval"]
    cells = ([*(getattr(r, c) for c in columns), r.interval.low, r.interval.high] for r in rows)
    write_csv(path, [*columns, "interval_low", "interval_high"], cells)
