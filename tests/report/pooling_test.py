"""Sweeps pooled: every field once, fields of the same cells as one, programs beside the arms."""

import json
import re

import numpy as np
import pytest

from isl_jax.data.crops import CropPlan
from isl_jax.data.description import DESCRIPTION
from isl_jax.data.store import open_dataset
from isl_jax.ingest.labels import read_label_image
from isl_jax.report.pooling import pool, pooled_table, write_pooled
from isl_jax.report.results import find_studies
from isl_jax.study.evaluate import evaluate_labels


def fold(make_dataset, root, source):
    """A data set whose four test fields are of three groups, prepared from `source`."""
    dataset = make_dataset(root, "cell")
    path = root / DESCRIPTION
    record = json.loads(path.read_text()) | {"source": source}
    assert record["fields"][3]["group"] == "well3"
    record["fields"][3]["group"] = "well2"
    path.write_text(json.dumps(record))
    return open_dataset(dataset.root)


def write_program(sweep, dataset, name, folder):
    """Scores of a program that knows the truth."""
    import tifffile

    folder.mkdir()
    for field in dataset.select("test"):
        tifffile.imwrite(folder / f"{field.name}.tif", np.array(dataset.labels(field.name)))
    evaluate_labels(
        folder, sweep / "others" / name, dataset, CropPlan(48, 3),
        read=read_label_image, stem_of=lambda path: path.stem,
    )  # fmt: skip


@pytest.fixture
def pooled(make_dataset, make_sweep, tmp_path):
    arms = ("random", "random-head", "isl")
    for name, source in (("a", "raw"), ("b", "raw"), ("c", "elsewhere")):
        dataset = fold(make_dataset, tmp_path / f"data-{name}", source)
        sweep = make_sweep(tmp_path / "S" / name, dataset, arms=arms)
        if name == "a":
            write_program(sweep, dataset, "stardist_n1_seed0", tmp_path / "masks")
    return tmp_path / "S"


def test_units_and_runs_are_counted_and_means_are_over_units(pooled):
    rows = {row.other: row for row in pool(pooled)}
    assert list(rows) == ["random", "random-head", "stardist"]
    # Three units a set, two sets (a and b are of one); two seeds a sweep.
    assert (rows["random"].num_units, rows["random"].num_runs) == (6, 6)
    assert (rows["stardist"].num_units, rows["stardist"].num_runs) == (3, 1)
    assert rows["stardist"].other_mean == pytest.approx(1)
    random = rows["random"]
    scores = {}
    for study in find_studies(pooled):
        source = "elsewhere" if study.workdir.name == "c" else "raw"
        for run in study.of("random", 1):
            for row in run.rows["fields"]:
                unit = source, {"well3 s1": "well2 s1"}.get(row["field"], row["field"])
                scores.setdefault(unit, []).append(row["map"])
    assert random.other_mean == pytest.approx(np.mean([np.mean(s) for s in scores.values()]))
    assert random.interval.low <= random.difference <= random.interval.high
    assert random.p >= 2**-5 and random.difference == random.mean - random.other_mean


def test_sweeps_are_found_through_links_and_counted_once(pooled, tmp_path):
    (tmp_path / "linked").mkdir()
    for name in ("a", "again"):
        (tmp_path / "linked" / name).symlink_to(pooled / "a")
    (row, *_) = pool(tmp_path / "linked")
    assert (row.num_units, row.num_runs) == (3, 2)


def test_the_table_and_its_file_say_the_same(pooled, tmp_path):
    rows = pool(pooled)
    table = pooled_table(rows)
    assert "with 3 units none can be below 0.25" in table
    assert re.search(rf"stardist +1  {rows[2].mean:.3f}  1.000 ", table)
    write_pooled(tmp_path / "pooled.csv", rows)
    lines = (tmp_path / "pooled.csv").read_text().splitlines()
    assert lines[0].startswith("other,n,mean,other_mean") and len(lines) == 4
    assert pooled_table([]).startswith("nothing to pool")


def test_sweeps_of_two_studies_are_not_pooled(pooled, make_dataset, make_sweep, tmp_path):
    make_sweep(pooled / "d", make_dataset(tmp_path / "nuclei", "nucleus"))
    with pytest.raises(ValueError, match="scored by iou and map, which cannot be pooled"):
        pool(pooled)
