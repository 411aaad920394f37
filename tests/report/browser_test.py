"""The page in a browser: its controls work, it loads nothing from elsewhere and logs no error.

A script at the end of a copy of the page uses the controls as a visitor would and writes down what
it sees.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from isl_jax.data.crops import CropPlan
from isl_jax.report import page as report
from isl_jax.report.results import find_studies
from tests.study.evaluate_test import score_labels, write_masks

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

_WATCH = """<script>
window.seen = { errors: [] };
addEventListener("error", (event) => seen.errors.push(event.message));
addEventListener("securitypolicyviolation", (event) => seen.errors.push(event.blockedURI));
</script>"""

_VISIT = """<script>
const pick = (control, value) => {
  control.value = value;
  control.dispatchEvent(new Event("change", { bubbles: true }));
};
addEventListener("load", () => {
  const compare = document.querySelector(".compare");
  const choice = (name) => compare.querySelector(`[data-choice="${name}"]`);
  const [left, right] = ["left", "right"].map((side) => compare.querySelector(`img.${side}`));
  const slider = compare.querySelector("input");
  seen.visible = !compare.hidden && left.naturalWidth > 0 && right.naturalWidth > 0;
  seen.first = [left.alt, right.alt];
  seen.captions = [...choice("left").options].map((option) => option.value);
  seen.shown = seen.captions.map((caption) => {
    pick(choice("left"), caption);
    return left.alt;
  });
  pick(choice("field"), choice("field").options[1].value);
  seen.other_field = [left.alt, right.alt];
  slider.value = 20;
  slider.dispatchEvent(new Event("input"));
  seen.line = getComputedStyle(compare.querySelector("img.right")).clipPath;

  const table = document.querySelector(".sortable");
  const column = (k) =>
    [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[k].textContent);
  const heads = [...table.tHead.rows[0].cells];
  const isl = heads.findIndex((head) => head.getAttribute("aria-sort") === "ascending");
  seen.heads = heads.map((head) => head.textContent);
  seen.worst_first = column(isl);
  heads[isl].querySelector("button").click();
  seen.best_first = column(isl);
  heads[0].querySelector("button").click();
  seen.fields = column(0);
  pick(document.querySelector('[data-filter="over"]'), "crops");
  seen.crops = column(1);
  pick(document.querySelector('[data-filter="n"]'), "4");
  seen.n = column(2);
  document.querySelector("details summary").click();
  seen.details = document.querySelector("details").open;
  seen.broken = [...document.images].filter((image) => image.src && !image.naturalWidth).length;
  seen.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  const note = document.createElement("pre");
  note.id = "seen";
  note.textContent = JSON.stringify(seen);
  document.body.append(note);
});
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser to show the page in: install one of {', '.join(_BROWSERS)}")
    return found


@pytest.fixture
def page(tmp_path, make_dataset, make_sweep) -> Path:
    dataset = make_dataset(tmp_path / "data", "nucleus")
    sweep = make_sweep(tmp_path / "sweep", dataset, n=(1, 4))
    write_masks(tmp_path / "masks", dataset, suffix="_cp_masks.tif")
    score_labels(tmp_path / "masks", sweep / "others" / "Cellpose", dataset, CropPlan(48, 3))
    return report.write_report(sweep)[0]


def visit(browser: str, page: Path) -> dict:
    """What the visiting script saw on the page."""
    copy = page.with_name("visited.html")
    text = page.read_text().replace("<head>", f"<head>{_WATCH}")
    copy.write_text(text.replace("</body>", f"{_VISIT}</body>"))
    ended = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--window-size=1280,1000", "--virtual-time-budget=5000", "--dump-dom", copy.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    noted = re.search(r'<pre id="seen">(.*?)</pre>', ended.stdout, re.DOTALL)
    assert noted, ended.stderr[-2000:]
    seen = json.loads(html.unescape(noted[1]))
    seen["console"] = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    return seen


def test_the_page_in_a_browser(browser, page):
    seen = visit(browser, page)
    assert seen["errors"] == [] and seen["console"] == []
    assert seen["loaded"] == [] or all(name.startswith("data:") for name in seen["loaded"])
    assert seen["broken"] == 0

    # The slider: any two pictures of any field, parted where it stands.
    assert seen["visible"] and seen["line"] == "inset(0px 0px 0px 20%)"
    names = [caption.split(": ", 1)[-1] for caption in seen["first"]]
    assert names == ["random initialisation", "ISL pretraining"]
    assert [caption.split(":")[0] for caption in seen["captions"]] == [
        "input", "stain", "predicted stain", "truth",
        "random initialisation", "ISL pretraining", "Cellpose",
    ]  # fmt: skip
    field = seen["first"][0].split(": ", 1)[0]
    assert seen["shown"] == [f"{field}: {caption}" for caption in seen["captions"]]
    assert all(not alt.startswith(field) for alt in seen["other_field"])

    # The table: worst first, each heading sorts and turns round, filters hide the rest.
    assert "IoU, Cellpose" in seen["heads"]
    scores = [float(text) for text in seen["worst_first"]]
    assert scores == sorted(scores) and len(scores) == 4
    assert seen["best_first"] == seen["worst_first"][::-1]
    assert seen["fields"] == sorted(seen["fields"])
    assert len(seen["crops"]) == 12 and all("," in text for text in seen["crops"])
    assert set(seen["n"]) == {"4"} and len(seen["n"]) == 12
    assert seen["details"]


def test_other_programs_stand_beside_the_arms(page, tmp_path):
    study = find_studies(tmp_path / "sweep")[0]
    (other,) = study.others
    score = other.score(study.metric, "crops")
    assert score.count == 12
    text = page.read_text()
    assert f"Cellpose reaches IoU {score} on the same crops" in text
    assert re.search(rf"Cellpose, IoU</th>\s*<td[^>]*>{re.escape(str(score))}</td>", text)
    with (page.parent / "tables" / "nucleus_summary.csv").open() as file:
        rows = [line for line in file if line.startswith("crops,,Cellpose,")]
    assert float(rows[0].split(",")[3]) == pytest.approx(score.mean)
    # They are no arm: the comparison is as without them.
    assert study.arms == ("random", "isl") and len(study.comparisons["fair"]["crops"]) == 2
