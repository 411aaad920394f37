"""Tables of a study: ours beside the paper's, scores by image, its runs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from isl_jax.report import narrative
from isl_jax.report.comparison import Contrast
from isl_jax.report.results import Study
from isl_jax.report.runs import OVERS, Over, Run, Scored
from isl_jax.report.wording import DASH, METRIC_NAMES, arm_name, interval_text, p_text, percent
from isl_jax.study.records import ISL, Row
from isl_jax.task import METRICS, Kind

# Scores that stand below the study's own, where there are such.
_FURTHER = {"ap_0.50": "AP at IoU 0.5", "pq": "PQ"}


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

    `compared` has gain, interval and p of each comparison. `other` is the score of another program,
    which belongs to no arm.
    """

    label: str
    scores: Mapping[str, str]
    compared: Mapping[Contrast, tuple[str, str, str]] = dataclasses.field(default_factory=dict)
    paper_baseline: str = ""
    paper_isl: str = ""
    paper_gain: str = ""
    other: str = ""


def table(study: Study, over: Over) -> list[TableRow]:
    """Rows of the main table: the stain first, then for each N the score, and others beside it."""
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
    for index, n in enumerate(study.n):
        rows.append(_row(study, over, index, paper))
        for name, title in _FURTHER.items():
            scores = {arm: study.score(arm, n, over, name) for arm in study.arms}
            if any(score.count for score in scores.values()):
                told = {arm: str(score) for arm, score in scores.items()}
                rows.append(TableRow(f"N = {n}, {title}", told))
    for other in study.others:
        label = f"{other.name}, {METRIC_NAMES[study.metric]}"
        score = str(other.score(study.metric, over))
        rows.append(TableRow(label, {}, other=score))
    return rows


def _row(study: Study, over: Over, index: int, paper: Published | None) -> TableRow:
    n = study.n[index]
    return TableRow(
        label=f"N = {n}, {METRIC_NAMES[study.metric]}",
        scores={arm: _cell(study, arm, n, over) for arm in study.arms},
        compared={
            contrast: (percent(c.gain), interval_text(c.interval), p_text(c.p))
            for contrast, found in study.comparisons.items()
            for c in (found[over][index],)
        },
        paper_baseline=_published(paper.baseline) if paper and n == 1 else "",
        paper_isl=_published(paper.isl) if paper and n == 1 else "",
        paper_gain=percent(paper.gains[n]) if paper and n in paper.gains else "",
    )


def _cell(study: Study, arm: str, n: int, over: Over) -> str:
    score, done = study.score(arm, n, over), len(study.of(arm, n))
    if done == len(study.seeds):
        return str(score)
    return f"{score} ({done} of {len(study.seeds)} runs)" if done else f"{DASH} (no run)"


def gain_titles(study: Study) -> dict[Contrast, str]:
    """What each comparison's gain is called over its column."""
    return {
        contrast: f"gain, {name}" if (name := narrative.contrast_name(study, contrast)) else "gain"
        for contrast in study.comparisons
    }


def _published(value: tuple[float, float]) -> str:
    return f"{value[0]:.2f} ± {value[1]:g}"


def text_table(study: Study) -> str:
    """The table for a terminal, over crops and over fields."""
    gains = gain_titles(study)
    arms = [arm_name(arm) for arm in study.arms]
    head = ["", *arms, *gains.values(), "paper", "paper's gain"]
    lines = [f"{study.study} study ({study.workdir})"]
    for over in OVERS:
        body = [head]
        for row in table(study, over):
            if row.other:
                continue
            scores = [row.scores.get(arm, "") for arm in study.arms]
            told = [row.compared.get(contrast, ("",))[0] for contrast in gains]
            paper = " → ".join(filter(None, (row.paper_baseline, row.paper_isl)))
            body.append([row.label, *scores, *told, paper, row.paper_gain])
        widths = [max(len(line[i]) for line in body) for i in range(len(head))]
        lines.append(f"over {over if over == 'crops' else 'whole fields'}, mean ± std")
        lines += [
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            for line in body
        ]
        lines += [f"  {row.label}: {row.other}" for row in table(study, over) if row.other]
    lines += [line for statement in narrative.statements(study) for line in statement]
    lines += [
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
                scores.setdefault(run.arm, []).append(row[study.metric])
    others = {
        (over, other.name, row["field"], _where(row, over)): row[study.metric]
        for other in study.others
        for over in OVERS
        for row in other.rows[over]
    }
    rows = []
    for (over, n, field, where), scores in found.items():
        means = {arm: sum(values) / len(values) for arm, values in scores.items()}
        for other in study.others:
            if (over, other.name, field, where) in others:
                means[other.name] = others[over, other.name, field, where]
        both = study.baseline in means and ISL in means
        difference = means[ISL] - means[str(study.baseline)] if both else None
        rows.append(
            {"over": over, "n": n, "field": field, "where": where, "scores": means}
            | {"difference": difference}
        )
    worst_of = ISL if ISL in study.arms else study.arms[0]
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
    """Flat configuration of the pretext run and of one run of each arm."""
    shown: list[tuple[str, Scored]] = []
    if study.pretext:
        shown.append(("stain prediction", study.pretext))
    for arm in study.arms:
        shown += [(arm_name(arm), r) for r in study.runs if r.arm == arm][:1]
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
