"""Tables of a study: ours beside the paper's, scores by image, its runs, and everything as CSV."""

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isl_jax.metrics import Score
from isl_jax.report import narrative
from isl_jax.report.figures import INIT_NAMES, METRIC_NAMES
from isl_jax.report.results import Comparison, Study
from isl_jax.report.runs import OVERS, Over, Run, Scored
from isl_jax.study.records import ISL, Row
from isl_jax.task import METRICS, Kind

_SUMMARY_COLUMNS = (
    *("over", "n", "init", "mean", "std", "images"),
    *("gain", "difference", "interval_low", "interval_high", "p_holm", "fields_compared"),
)


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


@dataclasses.dataclass(frozen=True)
class TableRow:
    """One line of the main table, as text; cells are empty where there is nothing to say.

    `other` is the score of another program, which belongs to no arm.
    """

    label: str
    scores: Mapping[str, str]
    gain: str = ""
    interval: str = ""
    p: str = ""
    paper_baseline: str = ""
    paper_isl: str = ""
    paper_gain: str = ""
    other: str = ""


def table(study: Study, over: Over) -> list[TableRow]:
    """Rows of the main table: the stain first, then one row for each N."""
    # The paper scores crops.
    paper = PAPER.get(study.study) if over == "crops" else None
    rows = []
    if study.pretext is not None:
        rows.append(
            TableRow(
                label="stain prediction, PCC",
                scores={ISL: str(study.pcc[over])},
                paper_isl=_published(paper.pcc) if paper else "",
            )
        )
    for compared in study.comparisons[over]:
        rows.append(_row(study, compared, paper))
    for other in study.others:
        label = f"{other.name}, {METRIC_NAMES[study.metric]}"
        score = str(other.score(study.metric, over))
        rows.append(TableRow(label, {}, other=score))
    return rows


def _row(study: Study, compared: Comparison, paper: Published | None) -> TableRow:
    n = compared.n
    return TableRow(
        label=f"N = {n}, {METRIC_NAMES[study.metric]}",
        scores={init: _cell(study, init, n, score) for init, score in compared.scores.items()},
        gain=narrative.percent(compared.gain),
        interval=narrative.interval_text(compared.interval),
        p=narrative.p_text(compared.p),
        paper_baseline=_published(paper.baseline) if paper and n == 1 else "",
        paper_isl=_published(paper.isl) if paper and n == 1 else "",
        paper_gain=narrative.percent(paper.gains[n]) if paper and n in paper.gains else "",
    )


def _cell(study: Study, init: str, n: int, score: Score) -> str:
    done = len(study.of(init, n))
    if done == len(study.seeds):
        return str(score)
    return f"{score} ({done} of {len(study.seeds)} runs)" if done else f"{narrative.DASH} (no run)"


def _published(value: tuple[float, float]) -> str:
    return f"{value[0]:.2f} ± {value[1]:g}"


def text_table(study: Study) -> str:
    """The table for a terminal, over crops and over fields."""
    head = ["", *(INIT_NAMES[init] for init in study.inits), "gain", "paper", "paper's gain"]
    lines = [f"{study.study} study ({study.workdir})"]
    for over in OVERS:
        body = [head]
        for row in table(study, over):
            if row.other:
                continue
            scores = [row.scores.get(init, "") for init in study.inits]
            paper = " → ".join(filter(None, (row.paper_baseline, row.paper_isl)))
            body.append([row.label, *scores, row.gain, paper, row.paper_gain])
        widths = [max(len(line[i]) for line in body) for i in range(len(head))]
        lines.append(f"over {over if over == 'crops' else 'whole fields'}, mean ± std")
        lines += [
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            for line in body
        ]
        lines += [f"  {row.label}: {row.other}" for row in table(study, over) if row.other]
    lines.append(narrative.headline(study))
    lines += [
        narrative.certainty(study),
        *narrative.annotations_saved(study),
        *narrative.other_programs(study),
    ]
    lines += [f"no scores: {run.workdir} ({run.status}: {run.reason})" for run in study.holes]
    return "\n".join(line.rstrip() for line in lines if line)


def image_scores(study: Study) -> list[dict[str, Any]]:
    """Scores by image, averaged over seeds, lowest first: the cases to look at."""
    found: dict[tuple[str, int, str, str], dict[str, list[float]]] = {}
    for run in study.done:
        for over in OVERS:
            for row in run.rows[over]:
                scores = found.setdefault((over, run.n, row["field"], _where(row, over)), {})
                scores.setdefault(run.init, []).append(row[study.metric])
    others = {
        (over, other.name, row["field"], _where(row, over)): row[study.metric]
        for other in study.others
        for over in OVERS
        for row in other.rows[over]
    }
    rows = []
    for (over, n, field, where), scores in found.items():
        means = {init: sum(values) / len(values) for init, values in scores.items()}
        for other in study.others:
            if (over, other.name, field, where) in others:
                means[other.name] = others[over, other.name, field, where]
        both = study.baseline in means and ISL in means
        difference = means[ISL] - means[str(study.baseline)] if both else None
        rows.append(
            {"over": over, "n": n, "field": field, "where": where, "scores": means}
            | {"difference": difference}
        )
    worst_of = ISL if ISL in study.inits else study.inits[0]
    return sorted(rows, key=lambda row: row["scores"].get(worst_of, 2.0))


def _where(row: Row, over: Over) -> str:
    return f"{row['top']:.0f}, {row['left']:.0f}" if over == "crops" else "whole"


def run_facts(run: Scored, study: Study) -> dict[str, Any]:
    """What the page tells of a run: mean scores, kept step, marker contrast, annotated images."""
    model = run.stored("model/model.json")
    in_grid = isinstance(run, Run)
    metric = study.metric if in_grid else METRICS[Kind.STAIN]
    scores = {over: run.score(metric, over) for over in OVERS}
    return {
        "run": run,
        "scores": {over: score.mean for over, score in scores.items() if score.count},
        "h": model.get("h"),
        "step": model.get("training", {}).get("step"),
        "annotated": model.get("training", {}).get("fields", []) if in_grid else [],
    }


def settings(study: Study) -> list[tuple[str, dict[str, Any]]]:
    """Flat configuration of the pretext run and of one run of each init."""
    shown: list[tuple[str, Scored]] = []
    if study.pretext:
        shown.append(("stain prediction", study.pretext))
    for init in study.inits:
        shown += [(INIT_NAMES[init], r) for r in study.runs if r.init == init][:1]
    return [(title, flat(run.stored("config.json"))) for title, run in shown]


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted keys."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def write_tables(study: Study, folder: Path, name: str) -> None:
    """Write `<name>_{summary,crops,fields}.csv`: all comparisons, every score of every run."""
    with (folder / f"{name}_summary.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_SUMMARY_COLUMNS)
        for over in OVERS:
            if study.pretext:
                writer.writerow([over, 0, "pretext_pcc", *dataclasses.astuple(study.pcc[over])])
            for c in study.comparisons[over]:
                for init, score in c.scores.items():
                    compared = [c.gain, c.difference, c.interval.low, c.interval.high, c.p]
                    is_isl = init == ISL
                    writer.writerow(
                        [over, c.n, init, *dataclasses.astuple(score)]
                        + ([*compared, c.num_fields] if is_isl else [""] * 6)
                    )
            for other in study.others:
                score = dataclasses.astuple(other.score(study.metric, over))
                writer.writerow([over, "", other.name, *score, *[""] * 6])
    for over in OVERS:
        with (folder / f"{name}_{over}.csv").open("w", newline="") as file:
            rows = [
                {"init": run.init, "n": run.n, "seed": run.seed} | row
                for run in study.done
                for row in run.rows[over]
            ]
            rows += [
                {"init": other.name, "n": "", "seed": ""} | row
                for other in study.others
                for row in other.rows[over]
            ]
            writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["init"])
            writer.writeheader()
            writer.writerows(rows)
