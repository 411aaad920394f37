"""One self-contained page about one or several sweeps, with its figures and tables as files."""

import csv
import dataclasses
import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2

from isl_jax.data.store import Dataset, open_dataset
from isl_jax.study import figures, narrative
from isl_jax.study.pictures import Panel, panels
from isl_jax.study.records import written_whole
from isl_jax.study.results import ISL, OVERS, PAPER, Run, Study, find_studies
from isl_jax.study.statistics import bootstrap_interval

PAGE = "index.html"
_SUMMARY_COLUMNS = (
    *("over", "n", "init", "mean", "std", "images"),
    *("gain", "difference", "interval_low", "interval_high", "p_holm", "fields_compared"),
)


def write_report(workdir: Path) -> tuple[Path, str]:
    """Write `workdir/report/` about the sweep (or sweeps) in `workdir`.

    Returns the path of the page and the table as text. The page holds everything it shows; runs
    without scores show as holes. Raises FileNotFoundError when there is no sweep.
    """
    studies = find_studies(workdir)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("isl_jax.study"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = workdir / "report"
    with written_whole(folder) as draft:
        (draft / "figures").mkdir()
        (draft / "tables").mkdir()
        sections = [_section(study, draft, several=len(studies) > 1) for study in studies]
        page = environment.get_template("report.html").render(
            sections=sections,
            version=metadata.version("isl-jax"),
            created=datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z"),
            workdir=workdir.resolve(),
        )
        (draft / PAGE).write_text(page, encoding="utf-8")
    return folder / PAGE, "\n\n".join(narrative.text_table(study) for study in studies)


def _section(study: Study, folder: Path, *, several: bool) -> dict[str, Any]:
    """All that the template says of one study; figures and tables are written on the way."""
    name = study.workdir.resolve().name if several else study.study
    dataset, shown = _pictures(study)
    tables = {over: narrative.table(study, over) for over in OVERS}
    settings = _settings(study)
    _write_tables(study, folder / "tables", name)
    return {
        "id": name,
        "study": study,
        "metric": figures.METRIC_NAMES[study.metric],
        "init_names": figures.INIT_NAMES,
        "colours": {"hit": figures.HIT, "missed": figures.MISSED, "extra": figures.EXTRA},
        "headline": narrative.headline(study),
        "certainty": narrative.certainty(study),
        "saved": narrative.annotations_saved(study),
        "paper": PAPER.get(study.study),
        "tables": tables,
        "plots": _plots(study, folder / "figures", name),
        "panels": [
            {
                "panel": panel,
                "pictures": {c: figures.picture_uri(p) for c, p in panel.pictures.items()},
            }
            for panel in shown
        ],
        "captions": list(dict.fromkeys(c for panel in shown for c in panel.pictures)),
        "panel_file": _panel_figure(shown, folder / "figures" / f"{name}_panels"),
        "dataset": dataset,
        "image_scores": _image_scores(study),
        "runs": [_run_facts(run, study) for run in (study.pretext, *study.runs) if run],
        "settings": settings,
        "setting_keys": sorted({key for _, values in settings for key in values}),
        "environment": next((r.stored("environment.json") for r in _done(study)), {}),
    }


def _done(study: Study) -> list[Run]:
    return [run for run in study.runs if run.status == "done"]


def _pictures(study: Study) -> tuple[Dataset | None, list[Panel]]:
    try:
        dataset = open_dataset(study.data_root)
    except (OSError, ValueError):
        return None, []  # the scores outlive the data; the page says what is missing
    return dataset, panels(study, dataset)


def _plots(study: Study, folder: Path, name: str) -> list[dict[str, str]]:
    metric, smallest = figures.METRIC_NAMES[study.metric], study.n[0]
    values = {init: study.values(init, smallest, "crops") for init in study.inits}
    plots = []
    if any(values.values()):
        figure = figures.box_plot(
            values, metric=study.metric, title=f"N = {smallest}, all test crops and seeds"
        )
        means = ", ".join(
            f"{figures.INIT_NAMES[init]} {study.score(init, smallest, 'crops')}" for init in values
        )
        plots.append(
            {
                "uri": figures.save(figure, folder / f"{name}_boxes"),
                "alt": f"Box plots of {metric} at N = {smallest}: {means}",
                "caption": f"{metric} after training on {narrative.images(smallest)} "
                "(paper: Fig. " + ("7a" if study.study == "nucleus" else "9a") + "). Box: "
                "quartiles; line: median; diamond: mean; whiskers: 1.5 interquartile ranges; "
                "dots: crops.",
                "file": f"{name}_boxes",
            }
        )
    if len(study.n) > 1 and _done(study):
        plots.append(_curve(study, folder, name))
    return plots


def _curve(study: Study, folder: Path, name: str) -> dict[str, str]:
    metric = figures.METRIC_NAMES[study.metric]
    means = {init: [study.score(init, n, "crops").mean for n in study.n] for init in study.inits}
    intervals = {
        init: [bootstrap_interval(list(study.by_field(init, n, "crops").values())) for n in study.n]
        for init in study.inits
    }
    figure = figures.learning_curves(
        study.n, means, intervals, metric=study.metric, title="all test crops and seeds"
    )
    told = "; ".join(
        f"{figures.INIT_NAMES[init]} "
        + ", ".join(f"{m:.2f} at N = {n}" for n, m in zip(study.n, of_init, strict=True))
        for init, of_init in means.items()
    )
    return {
        "uri": figures.save(figure, folder / f"{name}_curves"),
        "alt": f"Learning curves of mean {metric}: {told}",
        "caption": f"Mean {metric} against the number of annotated images (paper: Fig. "
        + ("7b" if study.study == "nucleus" else "9b")
        + "). Band: 95 % bootstrap interval over test fields.",
        "file": f"{name}_curves",
    }


def _panel_figure(shown: list[Panel], path: Path) -> str:
    if not shown:
        return ""
    figure = figures.panels(
        [panel.pictures for panel in shown], [f"{p.field} ({p.note})" for p in shown]
    )
    figures.save(figure, path)
    return path.name


def _image_scores(study: Study) -> list[dict[str, Any]]:
    """Scores by image, averaged over seeds, lowest first: the cases to look at."""
    found: dict[tuple[str, int, str, str], dict[str, list[float]]] = {}
    for run in _done(study):
        for over in OVERS:
            for row in run.rows[over]:
                where = f"{row['top']:.0f}, {row['left']:.0f}" if over == "crops" else "whole"
                scores = found.setdefault((over, run.n, row["field"], where), {})
                scores.setdefault(run.init, []).append(row[study.metric])
    rows = []
    for (over, n, field, where), scores in found.items():
        means = {init: sum(values) / len(values) for init, values in scores.items()}
        both = study.baseline in means and ISL in means
        difference = means[ISL] - means[str(study.baseline)] if both else None
        rows.append(
            {"over": over, "n": n, "field": field, "where": where, "scores": means}
            | {"difference": difference}
        )
    worst_of = ISL if ISL in study.inits else study.inits[0]
    return sorted(rows, key=lambda row: row["scores"].get(worst_of, 2.0))


def _run_facts(run: Run, study: Study) -> dict[str, Any]:
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


def _settings(study: Study) -> list[tuple[str, dict[str, Any]]]:
    """Flat configuration of the pretext run and of one run of each init."""
    shown = [("stain prediction", study.pretext)] if study.pretext else []
    for init in study.inits:
        shown += [(figures.INIT_NAMES[init], r) for r in study.runs if r.init == init][:1]
    return [(title, _flat(run.stored("config.json"))) for title, run in shown if run]


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _write_tables(study: Study, folder: Path, name: str) -> None:
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
    for over in OVERS:
        with (folder / f"{name}_{over}.csv").open("w", newline="") as file:
            rows = [
                {"init": run.init, "n": run.n, "seed": run.seed} | row
                for run in _done(study)
                for row in run.rows[over]
            ]
            writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["init"])
            writer.writeheader()
            writer.writerows(rows)
