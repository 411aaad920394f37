"""One self-contained page about one or several sweeps, with its figures and tables as files."""

import datetime
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2

from isl_jax.data.store import Dataset, open_dataset
from isl_jax.files import written_whole
from isl_jax.metrics import mean_std
from isl_jax.report import figures, narrative, tables
from isl_jax.report.csv_tables import write_tables
from isl_jax.report.panels import Panel, panels
from isl_jax.report.results import Study, find_studies
from isl_jax.report.runs import OVERS
from isl_jax.report.statistics import bootstrap_interval
from isl_jax.report.wording import METRIC_NAMES, arm_name, images
from isl_jax.study.records import ISL
from isl_jax.tabular import printable

# The folder in that of the sweeps, and its page.
REPORT, PAGE = "report", "index.html"


def write_report(workdir: Path) -> tuple[Path, str]:
    """Write `workdir/report/` about the sweep (or sweeps) in `workdir`.

    Returns the path of the page and the table as text. The page holds everything it shows; runs
    without scores show as holes. Raises FileNotFoundError when there is no sweep.
    """
    studies = find_studies(workdir)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("isl_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = workdir / REPORT
    with written_whole(folder) as draft:
        (draft / "figures").mkdir(parents=True)
        (draft / "tables").mkdir()
        names = _names(studies)
        sections = [_section(s, draft, n) for s, n in zip(studies, names, strict=True)]
        page = environment.get_template("report.html").render(
            sections=sections,
            version=metadata.version("isl-jax"),
            created=datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z"),
            workdir=workdir.resolve(),
        )
        (draft / PAGE).write_text(printable(page), encoding="utf-8")
    return folder / PAGE, "\n\n".join(tables.text_table(study) for study in studies)


def _names(studies: Sequence[Study]) -> list[str]:
    """What files and links of each study are called: letters and digits, each its own."""
    if len(studies) == 1:
        return [studies[0].study]
    names: list[str] = []
    for study in studies:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", study.workdir.resolve().name).strip("-")
        plain = plain or study.study
        others = (f"{plain}-{k}" for k in range(2, len(studies) + 2))
        names.append(plain if plain not in names else next(n for n in others if n not in names))
    return names


def _section(study: Study, folder: Path, name: str) -> dict[str, Any]:
    """All that the template says of one study; figures and tables are written on the way."""
    several = name != study.study
    dataset, shown = _pictures(study)
    settings = tables.settings(study)
    write_tables(study, folder / "tables", name)
    return {
        "id": name,
        "folder": study.workdir.resolve().name if several else "",
        "study": study,
        "metric": METRIC_NAMES[study.metric],
        "arms": {a: arm_name(a) for a in (*study.arms, *(o.name for o in study.others))},
        "gains": tables.gain_titles(study),
        "colours": {"hit": figures.HIT, "missed": figures.MISSED, "extra": figures.EXTRA},
        "statements": narrative.statements(study),
        "saved": [*narrative.annotations_saved(study), *narrative.other_programs(study)],
        "paper": tables.PAPER.get(study.study),
        "tables": {over: tables.table(study, over) for over in OVERS},
        "plots": _plots(study, folder / "figures", name),
        "training": _training(study, folder / "figures", name),
        "panels": [
            {
                "panel": panel,
                "pictures": {c: figures.picture_uri(p) for c, p in panel.pictures.items()},
            }
            for panel in shown
        ],
        "captions": list(dict.fromkeys(c for panel in shown for c in panel.pictures)),
        # What the slider shows at first: the two ends of the comparison, or the truth and the arm.
        "compared": {
            "left": arm_name(study.baseline) if ISL in study.arms and study.baseline else "truth",
            "right": arm_name(ISL if ISL in study.arms else study.arms[-1]),
        },
        "panel_file": _panel_figure(shown, folder / "figures" / f"{name}_panels"),
        "dataset": dataset,
        "image_scores": tables.image_scores(study),
        "runs": [tables.run_facts(run, study) for run in (study.pretext, *study.runs) if run],
        "settings": settings,
        "setting_keys": sorted({key for _, values in settings for key in values}),
        "environment": tables.flat(
            next((run.stored("environment.json") for run in study.done), {})
        ),
    }


def _pictures(study: Study) -> tuple[Dataset | None, list[Panel]]:
    try:
        dataset = open_dataset(study.data_root)
    except (OSError, ValueError):
        return None, []  # the scores outlive the data; the page says what is missing
    return dataset, panels(study, dataset)


def _plots(study: Study, folder: Path, name: str) -> list[dict[str, str]]:
    metric, smallest = METRIC_NAMES[study.metric], study.n[0]
    values = {arm: study.values(arm, smallest, "crops") for arm in study.arms}
    values |= {o.name: o.values(study.metric, "crops") for o in study.others}
    plots = []
    if any(values.values()):
        figure = figures.box_plot(
            values, metric=study.metric, title=f"N = {smallest}, all test crops and seeds"
        )
        means = ", ".join(f"{arm_name(arm)} {mean_std(scores)}" for arm, scores in values.items())
        plots.append(
            {
                "uri": figures.save(figure, folder / f"{name}_boxes"),
                "alt": f"Box plots of {metric} at N = {smallest}: {means}",
                "caption": f"{metric} after training on {images(smallest)} "
                "(paper: Fig. " + ("7a" if study.study == "nucleus" else "9a") + "). Box: "
                "quartiles; line: median; diamond: mean; whiskers: 1.5 interquartile ranges; "
                "dots: crops.",
                "file": f"{name}_boxes",
            }
        )
    if len(study.n) > 1 and study.done:
        plots.append(_curve(study, folder, name))
    return plots


def _curve(study: Study, folder: Path, name: str) -> dict[str, str]:
    metric = METRIC_NAMES[study.metric]
    means = {arm: [study.score(arm, n, "crops").mean for n in study.n] for arm in study.arms}
    intervals = {
        arm: [bootstrap_interval(list(study.by_field(arm, n, "crops").values())) for n in study.n]
        for arm in study.arms
    }
    figure = figures.learning_curves(
        study.n,
        means,
        intervals,
        metric=study.metric,
        title="all test crops and seeds",
        seeds={arm: [study.run_means(arm, n, "crops") for n in study.n] for arm in study.arms}
        if len(study.seeds) > 1
        else None,
        levels={o.name: o.score(study.metric, "crops").mean for o in study.others},
    )
    told = "; ".join(
        f"{arm_name(arm)} "
        + ", ".join(f"{m:.2f} at N = {n}" for n, m in zip(study.n, of_arm, strict=True))
        for arm, of_arm in means.items()
    )
    return {
        "uri": figures.save(figure, folder / f"{name}_curves"),
        "alt": f"Learning curves of mean {metric}: {told}",
        "caption": f"Mean {metric} against the number of annotated images (paper: Fig. "
        + ("7b" if study.study == "nucleus" else "9b")
        + "). Band: 95 % bootstrap interval over test fields."
        + (" Dots: runs." if len(study.seeds) > 1 else "")
        + (" Dashed: other programs." if study.others else ""),
        "file": f"{name}_curves",
    }


def _training(study: Study, folder: Path, name: str) -> dict[str, str] | None:
    # Runs from ISL and others have losses of one kind, the pretext run another: it is left out.
    curves = [(run.arm, points) for run in study.runs if (points := run.losses())]
    if not curves:
        return None
    return {
        "uri": figures.save(figures.training_curves(curves), folder / f"{name}_training"),
        "alt": f"Training loss of {len(curves)} runs by step",
        "caption": "Training loss of every segmentation run.",
        "file": f"{name}_training",
    }


def _panel_figure(shown: list[Panel], path: Path) -> str:
    if not shown:
        return ""
    figure = figures.panels(
        [panel.pictures for panel in shown], [f"{p.field} ({p.note})" for p in shown]
    )
    figures.save(figure, path)
    return path.name
