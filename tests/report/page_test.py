"""The page: everything on it, nothing from elsewhere, holes and losses told honestly."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from isl_jax.data.crops import CropPlan
from isl_jax.data.store import open_dataset
from isl_jax.report import narrative, wording
from isl_jax.report import page as report
from isl_jax.report.results import find_studies
from tests.study.evaluate_test import score_labels, write_masks


class _Page(HTMLParser):
    """What a browser would load, the text it would show, and the structure of both."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.images: list[dict] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self._skipped = False
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self._skipped = tag in ("script", "style")
        if tag == "img":
            self.images.append(values)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        else:
            self.sources += [values[name] for name in ("src", "href") if values.get(name)]

    def handle_data(self, data):
        if not self._skipped:
            self.words.append(data)


@pytest.fixture
def sweep(tmp_path, make_dataset, make_sweep):
    dataset = make_dataset(tmp_path / "data", "cell")
    return make_sweep(tmp_path / "sweep", dataset, n=(1, 4))


def test_page_needs_nothing_from_elsewhere(sweep):
    path, _ = report.write_report(sweep)
    page = _Page(path)
    assert path == sweep / "report" / "index.html"
    assert page.sources and all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", path.read_text())
    assert path.stat().st_size < 8e6
    # Every picture that is there from the start is described; every file named exists.
    assert all(image["alt"] for image in page.images if "src" in image)
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        target = path.parent / link
        assert link.startswith("https://") or link.lstrip("#") in page.ids or target.is_file()


def test_page_and_summaries_agree(sweep):
    path, text = report.write_report(sweep)
    page = _Page(path)
    study = find_studies(sweep)[0]
    for over in ("crops", "fields"):
        for init in ("random", "isl"):
            for n in (1, 4):
                stored = [
                    json.loads((run.workdir / "evaluation/summary.json").read_text())[over]
                    for run in study.of(init, n)
                ]
                # Equal numbers of images a seed: the pooled mean is the mean of the means, the
                # pooled variance that of all scores about it.
                mean = np.mean([s["mean"] for s in stored])
                std = np.sqrt(np.mean([s["std"] ** 2 + (s["mean"] - mean) ** 2 for s in stored]))
                assert f"{mean:.2f} ± {std:.2f}" in page.text
                assert f"{mean:.2f} ± {std:.2f}" in text
    assert "94.1 %" in page.text and "0.33 ± 0.09" in page.text  # the paper's, beside ours


def test_headline_names_the_gain(sweep):
    study = find_studies(sweep)[0]
    random, isl = (study.score(init, 1, "crops") for init in ("random", "isl"))
    gain = 100 * (isl.mean - random.mean) / random.mean
    assert narrative.headline(study, "paper") == (
        f"With one annotated image, ISL pretraining reaches mAP {isl} where random initialisation "
        f"reaches {random} (+{gain:.1f} %; with the head after ISL only)."
    )
    page = _Page(report.write_report(sweep)[0])
    assert narrative.headline(study, "paper") in page.text
    assert "starts from random weights" in page.text


def test_the_papers_gain_and_the_fair_one_stand_side_by_side(tmp_path, make_dataset, make_sweep):
    dataset = make_dataset(tmp_path / "data", "cell")
    arms = ("random", "random-head", "isl")
    sweep = make_sweep(tmp_path / "sweep", dataset, n=(1, 4), arms=arms)
    path, text = report.write_report(sweep)
    page, study = _Page(path), find_studies(sweep)[0]
    assert study.baselines == {"fair": "random-head", "paper": "random"}
    scores = {arm: study.score(arm, 1, "crops") for arm in arms}
    for contrast, arm, told in (
        ("paper", "random", "with the head after ISL only"),
        ("fair", "random-head", "same network in both arms"),
    ):
        gain = wording.percent(scores["isl"].mean / scores[arm].mean - 1)
        sentence = narrative.headline(study, contrast)
        assert f"({gain}; {told})." in sentence
        assert sentence in page.text and sentence in text
        assert gain in text.split(f"gain, {told}")[1].splitlines()[2]
        compared = study.comparisons[contrast]["crops"][0]
        assert (compared.baseline, compared.num_seeds) == (arm, 2)
    fair, paper = (sentence for sentence, _ in narrative.statements(study))
    assert "with the same head" in fair and "with the same head" not in paper
    # Controls stand in every plot and table; the pictures compare with them.
    assert "random initialisation with the same head" in page.images[0]["alt"]
    assert "N = 1, AP at IoU 0.5" in text and "N = 4, PQ" in page.text
    with (sweep / "report/tables/cell_summary.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if (r["over"], r["n"]) == ("fields", "1")]
    assert [r["arm"] for r in rows] == [*arms, "isl − random-head", "isl − random"]
    assert [r["comparison"] for r in rows] == ["", "", "", "fair", "paper"]


def test_headline_is_honest_when_isl_loses(tmp_path, make_dataset, make_sweep):
    dataset = make_dataset(tmp_path / "data", "nucleus")
    noise = {"random": 0.2, "isl": 1.2}
    sweep = make_sweep(tmp_path / "sweep", dataset, seeds=(0,), noise=noise)
    sentence = narrative.headline(find_studies(sweep)[0], "fair")
    assert "did not help" in sentence and "(−" in sentence


def test_failed_and_missing_runs_are_holes(tmp_path, make_dataset, make_sweep):
    dataset = make_dataset(tmp_path / "data", "cell")
    holes = {"isl_n1_seed1": "out of luck", "random_n4_seed0": "missing"}
    holes |= {"random_n4_seed1": "unfinished"}
    sweep = make_sweep(tmp_path / "sweep", dataset, n=(1, 4), holes=holes)
    path, text = report.write_report(sweep)
    page = _Page(path)
    assert "3 of 9 runs have no scores" in page.text
    assert "ValueError: out of luck" in page.text and "not started" in page.text
    assert "(1 of 2 runs)" in page.text and "(no run)" in page.text
    assert "isl_n1_seed1 (failed" in text


def test_nothing_scored_yet_still_gives_a_page(tmp_path, make_dataset, make_sweep):
    dataset = make_dataset(tmp_path / "data", "nucleus")
    holes = {"isl_n1_seed0": "missing", "random_n1_seed0": "broken"}
    sweep = make_sweep(tmp_path / "sweep", dataset, seeds=(0,), holes=holes)
    page = _Page(report.write_report(sweep)[0])
    assert "No run with one annotated image has been scored yet." in page.text


def test_data_that_are_gone_cost_the_pictures_only(sweep):
    stored = json.loads((sweep / "sweep.json").read_text()) | {"data_root": "/gone"}
    (sweep / "sweep.json").write_text(json.dumps(stored))
    page = _Page(report.write_report(sweep)[0])
    assert "No pictures" in page.text and "ISL pretraining reaches" in page.text


def test_several_sweeps_on_one_page(tmp_path, make_dataset, make_sweep):
    reason = {"init": "random", "reason": "HTTP 403 at <host>"}
    for study in ("cell", "nucleus"):
        dataset = make_dataset(tmp_path / f"data_{study}", study)
        make_sweep(tmp_path / "runs" / study, dataset, seeds=(0,), stand_in=reason)
    page = _Page(report.write_report(tmp_path / "runs")[0])
    assert page.text.index("Nucleus study") < page.text.index("Cell study")
    assert {"nucleus", "cell"} <= set(page.ids)
    assert "HTTP 403 at <host>" in page.text  # and escaped in the source


def test_tables_beside_the_page_hold_every_score(sweep):
    report.write_report(sweep)
    with (sweep / "report/tables/cell_fields.csv").open() as file:
        rows = list(csv.DictReader(file))
    study = find_studies(sweep)[0]
    assert len(rows) == 2 * 2 * 2 * 4  # inits, N, seeds, test fields
    isl = [float(r["map"]) for r in rows if (r["arm"], r["n"]) == ("isl", "1")]
    assert np.mean(isl) == pytest.approx(study.score("isl", 1, "fields").mean)
    for name in ("boxes", "curves", "panels"):
        for suffix in ("png", "svg"):
            assert (sweep / f"report/figures/cell_{name}.{suffix}").stat().st_size > 1000


def test_training_curves_are_shown_where_they_were_recorded(sweep):
    lines = [json.dumps({"step": k, "split": "train", "loss": 1 / k}) for k in (1, 2, 3)]
    lines += [json.dumps({"step": 3, "split": "validation", "loss": 9.0}), '{"step": 4, "spl']
    for run in find_studies(sweep)[0].runs[:3]:
        (run.workdir / "metrics.jsonl").write_text("\n".join(lines))
        assert run.losses() == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    page = _Page(report.write_report(sweep)[0])
    assert "Training loss of 3 runs by step" in [image.get("alt") for image in page.images]


def test_writing_again_replaces_the_report(sweep):
    path, _ = report.write_report(sweep)
    (path.parent / "old.txt").write_text("left over")
    assert report.write_report(sweep)[0].exists()
    assert not (path.parent / "old.txt").exists()
    assert not [path for path in sweep.iterdir() if "partial" in path.name]


def test_folder_without_a_sweep(tmp_path):
    with pytest.raises(FileNotFoundError, match="no sweep here"):
        report.write_report(tmp_path)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ValueError, match="damaged"):
        report.write_report(tmp_path)


AWKWARD = "=1+1 $\\frac{$ #%41<img src=javascript:x> \udcff"


def test_names_are_text_and_nothing_else(tmp_path, make_dataset, make_sweep):
    root = tmp_path / "data"
    make_dataset(root, "nucleus")
    stored = json.loads((root / "dataset.json").read_text())
    for entry in stored["fields"]:
        awkward = AWKWARD + entry["name"]
        (root / "fields" / entry["name"]).rename(root / "fields" / awkward)
        entry["name"] = awkward
    (root / "dataset.json").write_text(json.dumps(stored))
    dataset = open_dataset(root)
    for folder in ("a b", "a-b", "細胞"):
        sweep = make_sweep(tmp_path / "S" / folder, dataset)
    write_masks(tmp_path / "masks", dataset, suffix="_cp_masks.tif")
    score_labels(tmp_path / "masks", sweep / "others" / AWKWARD, dataset, CropPlan(48, 3))
    path, table = report.write_report(tmp_path / "S")
    page = _Page(path)
    shown = AWKWARD.replace("\udcff", "\\udcff")
    assert shown in page.text and shown in table
    assert all(image.get("src", "data:").startswith("data:") for image in page.images)
    assert not [link for link in page.links if "javascript" in link or "%" in link]
    links = [link for link in page.links if link.startswith(("tables", "figures"))]
    assert all((path.parent / link).is_file() for link in links)
    assert len(list((path.parent / "tables").iterdir())) == 9  # three of each sweep
    for file in (path.parent / "tables").glob("*_fields.csv"):
        with file.open(newline="", encoding="utf-8") as lines:
            cells = [cell for row in csv.reader(lines) for cell in row]
        assert any(cell.startswith("'=1+1") for cell in cells)
        assert not any(cell.startswith("=") for cell in cells)
