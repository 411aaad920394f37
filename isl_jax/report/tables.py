"""Tables of a study: scores by image, facts about its runs, and everything as CSV."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

from isl_jax.report.figures import INIT_NAMES
from isl_jax.report.results import OVERS, Over, Run, Study
from isl_jax.study.records import ISL, Row

_SUMMARY_COLUMNS = (
    *("over", "n", "init", "mean", "std", "images"),
    *("gain", "difference", "interval_low", "interval_high", "p_holm", "fields_compared"),
)


def image_scores(study: Study) -> list[dict[str, Any]]:
    """Scores by image, averaged over seeds, lowest first: the cases to look at."""
    found: dict[tuple[str, int, str, str], dict[str, list[float]]] = {}
    for run in study.done:
        for over in OVERS:
            for row in run.rows[over]:
                scores = found.setdefault((over, run.n, row["field"], _where(row, over)), {})
                scores.setdefault(run.init, []).append(row[study.metric])
    others = {
        (over, other.init, row["field"], _where(row, over)): row[study.metric]
        for other in study.others
        for over in OVERS
        for row in other.rows[over]
    }
    rows = []
    for (over, n, field, where), scores in found.items():
        means = {init: sum(values) / len(values) for init, values in scores.items()}
        for other in study.others:
            if (over, other.init, field, where) in others:
                means[other.init] = others[over, other.init, field, where]
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


def run_facts(run: Run, study: Study) -> dict[str, Any]:
    """What the page tells of a run: mean scores, kept step, marker contrast, annotated images."""
    model = run.stored("model/model.json")
    metric = "pcc" if run.n == 0 else study.metric
    scores = {
        over: sum(row[metric] for row in rows) / len(rows)
        for over, rows in run.rows.items()
        if rows
    }
    return {
        "run": run,
        "scores": scores,
        "h": model.get("h"),
        "step": model.get("training", {}).get("step"),
        "annotated": model.get("training", {}).get("fields", []) if run.n else [],
    }


def settings(study: Study) -> list[tuple[str, dict[str, Any]]]:
    """Flat configuration of the pretext run and of one run of each init."""
    shown = [("stain prediction", study.pretext)] if study.pretext else []
    for init in study.inits:
        shown += [(INIT_NAMES[init], r) for r in study.runs if r.init == init][:1]
    return [(title, flat(run.stored("config.json"))) for title, run in shown if run]


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
                score = dataclasses.astuple(study.other_score(other, over))
                writer.writerow([over, "", other.init, *score, *[""] * 6])
    for over in OVERS:
        with (folder / f"{name}_{over}.csv").open("w", newline="") as file:
            rows = [
                {"init": run.init, "n": run.n, "seed": run.seed} | row
                for run in study.done
                for row in run.rows[over]
            ]
            rows += [
                {"init": other.init, "n": "", "seed": ""} | row
                for other in study.others
                for row in other.rows[over]
            ]
            writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["init"])
            writer.writeheader()
            writer.writerows(rows)
