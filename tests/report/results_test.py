"""Comparison of the arms of a sweep, worked out by hand from its files."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from isl_jax.report import narrative, wording
from isl_jax.report.results import find_studies
from isl_jax.report.runs import Run
from isl_jax.report.statistics import Interval


def write_run(sweep, name, scores, *, crops=None, summary=None):
    """A run whose fields f0, f1, … have these scores."""
    folder = sweep / name if "/" in name else sweep / "runs" / name
    folder /= "evaluation"
    folder.mkdir(parents=True)
    rows = [f"f{i},{value}" for i, value in enumerate(scores)]
    (folder / "fields.csv").write_text("\n".join(["field,iou", *rows]) + "\n")
    crops = crops or [(f"f{i}", value) for i, value in enumerate(scores)]
    rows = [f"{field},{k},0,64,{value}" for k, (field, value) in enumerate(crops)]
    (folder / "crops.csv").write_text("\n".join(["field,top,left,size,iou", *rows]) + "\n")
    stored = {"metric": "iou"} | {
        over: {"mean": 0.5, "std": 0.1, "count": count}
        for over, count in (("crops", len(crops)), ("fields", len(scores)))
    }
    (folder / "summary.json").write_text(json.dumps(stored | (summary or {})))


@pytest.fixture
def make(tmp_path):
    """`make(runs, n=…)` writes a sweep of these runs and reads it."""

    def write(runs, *, n=(1,), inits=("random", "isl"), seeds=(0,), **stored):
        sweep = tmp_path / "sweep"
        sweep.mkdir()
        record = {"study": "nucleus", "n": n, "inits": inits, "seeds": seeds, "data_root": "/none"}
        (sweep / "sweep.json").write_text(json.dumps(record | stored))
        for name, scores in runs.items():
            write_run(sweep, name, scores)
        return find_studies(sweep)[0]

    return write


def test_comparison_pairs_fields_and_averages_seeds(make):
    random = {0: [0.2, 0.4, 0.5, 0.3, 0.1, 0.6], 1: [0.3, 0.4, 0.7, 0.1, 0.2, 0.5]}
    isl = {0: [0.5, 0.6, 0.4, 0.7, 0.6, 0.8], 1: [0.4, 0.5, 0.9, 0.6, 0.7, 0.9]}
    study = make(
        {f"random_n1_seed{s}": v for s, v in random.items()}
        | {f"isl_n1_seed{s}": v for s, v in isl.items()},
        seeds=(0, 1),
    )
    (compared,) = study.comparisons["fair"]["fields"]
    pooled = np.concatenate([isl[0], isl[1]])
    assert study.score("isl", 1, "fields").mean == pytest.approx(pooled.mean())
    assert study.score("isl", 1, "fields").std == pytest.approx(pooled.std())
    baseline = np.mean([random[0], random[1]], axis=0)
    with_isl = np.mean([isl[0], isl[1]], axis=0)
    assert compared.difference == pytest.approx(np.mean(with_isl - baseline))
    assert compared.p == pytest.approx(stats.wilcoxon(with_isl, baseline).pvalue)
    assert compared.gain == pytest.approx(pooled.mean() / baseline.mean() - 1)
    assert compared.num_fields == 6
    assert compared.interval.low < compared.difference < compared.interval.high


def test_crops_of_a_field_count_as_one_observation(make, tmp_path):
    study = make({"random_n1_seed0": [0.1, 0.2]})
    crops = [("f0", 0.4), ("f0", 0.6), ("f1", 0.8)]
    write_run(tmp_path / "sweep", "isl_n1_seed0", [0.5, 0.8], crops=crops)
    study = find_studies(tmp_path / "sweep")[0]
    (compared,) = study.comparisons["fair"]["crops"]
    assert study.score("isl", 1, "crops").count == 3 and compared.num_fields == 2
    assert compared.difference == pytest.approx(((0.5 - 0.1) + (0.8 - 0.2)) / 2)


def test_only_seeds_of_both_arms_are_compared(make):
    study = make(
        {
            "random_n1_seed0": [0.2, 0.3],
            "isl_n1_seed0": [0.4, 0.5],
            "isl_n1_seed1": [1.0, 1.0],
        },
        seeds=(0, 1),
    )
    assert study.comparisons["fair"]["fields"][0].difference == pytest.approx(0.2)
    assert [run.workdir.name for run in study.holes] == ["pretrain", "random_n1_seed1"]


def test_imagenet_is_the_baseline_where_there_is_one(make):
    runs = {"random_n1_seed0": [0.1], "imagenet_n1_seed0": [0.4], "isl_n1_seed0": [0.6]}
    study = make(runs, inits=("random", "imagenet", "isl"))
    assert study.baseline == "imagenet"
    assert study.comparisons["fair"]["crops"][0].gain == pytest.approx(0.5)
    assert "where ImageNet reaches 0.40" in narrative.statements(study)[0][0]


def test_one_arm_alone_is_still_told(make):
    study = make({"random_n1_seed0": [0.25, 0.35]}, inits=("random",))
    assert study.pretext is None
    assert study.comparisons == {}
    assert "random initialisation reaches IoU 0.30 ± 0.05" in narrative.statements(study)[0][0]
    assert narrative.statements(study)[0][1] == ""


def test_p_values_are_corrected_over_n(make):
    rng = np.random.default_rng(0)
    runs, raw = {}, []
    for n in (1, 10):
        random = rng.uniform(0.2, 0.6, size=7)
        isl = random + rng.uniform(0.01, 0.2, size=7)
        runs |= {f"random_n{n}_seed0": random, f"isl_n{n}_seed0": isl}
        raw.append(stats.wilcoxon(isl, random).pvalue)
    study = make(runs, n=(10, 1))
    assert study.n == (1, 10)
    assert [c.p for c in study.comparisons["fair"]["fields"]] == pytest.approx([2 * min(raw)] * 2)


def test_annotations_saved(make):
    curve = {1: (0.2, 0.6), 10: (0.4, 0.7), 100: (0.6, 0.75)}
    runs = {f"random_n{n}_seed0": [low] for n, (low, _) in curve.items()}
    runs |= {f"isl_n{n}_seed0": [high] for n, (_, high) in curve.items()}
    sentences = narrative.annotations_saved(make(runs, n=(1, 10, 100)))
    assert sentences == [
        "Random initialisation needs about 100 annotated images to reach what ISL pretraining "
        "reaches with one.",
        "Random initialisation does not reach with up to 100 annotated images what ISL pretraining "
        "reaches with 10.",
    ]


def test_no_annotation_saved(make):
    runs = {"random_n1_seed0": [0.5], "isl_n1_seed0": [0.4]}
    runs |= {"random_n4_seed0": [0.6], "isl_n4_seed0": [0.6]}
    sentences = narrative.annotations_saved(make(runs, n=(1, 4)))
    assert sentences == [
        "Random initialisation needs no more images to reach what ISL pretraining reaches with one."
    ]


def test_pretext_run_of_another_place(make, tmp_path):
    study = make({"random_n1_seed0": [0.1], "isl_n1_seed0": [0.2]})
    elsewhere = tmp_path / "pretext" / "evaluation"
    elsewhere.mkdir(parents=True)
    (elsewhere / "fields.csv").write_text("field,pcc\nf0,0.9\n")
    (elsewhere / "crops.csv").write_text("field,top,left,size,pcc\nf0,0,0,64,0.8\n")
    one = {"mean": 0.5, "std": 0.1, "count": 1}
    (elsewhere / "summary.json").write_text(
        json.dumps({"metric": "pcc", "crops": one, "fields": one})
    )
    config = study.workdir / "runs" / "isl_n1_seed0" / "config.json"
    config.write_text(json.dumps({"init": {"checkpoint": str(tmp_path / "pretext")}}))
    study = find_studies(study.workdir)[0]
    assert study.pcc["crops"].mean == 0.8 and study.pcc["fields"].mean == 0.9
    assert study.holes == []


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.3125, "+31.2 %"), (-0.029, "−2.9 %"), (0.0, "0.0 %"), (-0.0004, "0.0 %"), (math.nan, "–")],
)
def test_percent(number, text):
    assert wording.percent(number) == text


def test_small_texts():
    assert wording.interval_text(Interval(-0.021, 0.1541)) == "−0.021 … +0.154"
    assert wording.p_text(0.0312, "p ") == "p = 0.031"
    assert wording.p_text(2e-5, "p ") == "p < 0.001" and wording.p_text(2e-5) == "< 0.001"
    assert wording.images(1) == "one annotated image"
    assert wording.images(10) == "10 annotated images"


@pytest.mark.parametrize(
    ("gains", "told"),
    [
        ([0.3], "too few for an interval or a test"),
        ([0.3, 0.2, 0.25], "can give a p below 0.25: more are needed"),
        ([0.3, -0.3, 0.2, -0.1, 0.1, 0.05, -0.2], "may be chance"),
        ([0.3, 0.2, 0.25, 0.1, 0.4, 0.35, 0.15], "would hardly turn it round"),
    ],
)
def test_certainty(make, gains, told):
    random = [0.3 + 0.01 * i for i in range(len(gains))]
    isl = [r + g for r, g in zip(random, gains, strict=True)]
    study = make({"random_n1_seed0": random, "isl_n1_seed0": isl})
    assert told in narrative.certainty(study, "fair")
    assert "single seed" in narrative.certainty(study, "fair")


def test_certainty_counts_the_seeds_that_agree(make):
    gains = {0: 0.2, 1: -0.1, 2: 0.3}
    runs = {f"random_n1_seed{s}": [0.4, 0.3] for s in gains}
    runs |= {f"isl_n1_seed{s}": [0.4 + g, 0.3 + g] for s, g in gains.items() if s != 1}
    study = make(runs | {"isl_n1_seed1": [0.3, 0.2]}, seeds=(0, 1, 2))
    assert study.seed_differences("random", 1, "crops") == pytest.approx(gains)
    assert "ahead in 2 of 3 seeds" in narrative.certainty(study, "fair")


CROPS = {"size": 64, "per_image": 2, "margin": [0, 0, 0, 0], "seed": 0}


@pytest.mark.parametrize("odd", ["runs/isl_n1_seed1", "others/Cellpose"])
def test_scores_of_different_crops_are_not_mixed(make, tmp_path, odd):
    make({"random_n1_seed0": [0.2]}, seeds=(0, 1))  # without its crops, as earlier versions wrote
    sweep = tmp_path / "sweep"
    write_run(sweep, "random_n1_seed1", [0.3], summary={"test_crops": CROPS})
    write_run(sweep, "isl_n1_seed0", [0.4], summary={"test_crops": CROPS})
    # The pretext run is compared with nothing: its crops may be others.
    write_run(sweep, "./pretrain", [0.9], summary={"test_crops": CROPS | {"seed": 3}})
    assert find_studies(sweep)[0].of("isl", 1)
    write_run(sweep, odd, [0.5], summary={"test_crops": CROPS | {"seed": 7}})
    with pytest.raises(ValueError, match="different crops") as caught:
        find_studies(sweep)
    same, other = str(caught.value).split("; ")[:2]
    assert "isl_n1_seed0, random_n1_seed1 on" in same and "seed 0" in same
    assert other.startswith(odd.split("/")[1]) and "seed 7" in other
    assert "random_n1_seed0" not in str(caught.value)


def test_what_is_no_run_of_the_grid_has_a_class_of_its_own(make, tmp_path):
    make({"random_n1_seed0": [0.2], "isl_n1_seed0": [0.3]})
    write_run(tmp_path / "sweep", "others/isl", [0.9])  # a program may have any name
    study = find_studies(tmp_path / "sweep")[0]
    assert [program.name for program in study.others] == ["isl"]
    assert study.score("isl", 1, "crops").mean == 0.3
    assert not isinstance(study.pretext, Run) and not isinstance(study.others[0], Run)


def test_scores_of_different_augmentation_are_not_mixed(make, tmp_path):
    make({"random_n1_seed0": [0.2]})
    write_run(tmp_path / "sweep", "isl_n1_seed0", [0.4], summary={"tta": 8})
    with pytest.raises(ValueError, match=r"different --tta.*random_n1_seed0 with 1; isl.* with 8"):
        find_studies(tmp_path / "sweep")
