"""What the results say in words, for the page and the terminal."""

import math
from collections.abc import Sequence

from isl_jax.report.comparison import Contrast
from isl_jax.report.results import Study
from isl_jax.report.wording import (
    METRIC_NAMES,
    arm_name,
    counted,
    images,
    in_words,
    interval_text,
    p_text,
    percent,
    signed,
)
from isl_jax.study.records import ISL

SIGNIFICANT = 0.05


def contrast_name(study: Study, contrast: Contrast) -> str:
    """Which comparison of ISL with a baseline a number belongs to; empty where there is but one."""
    if not study.has_head:
        return ""
    return {"paper": "with the head after ISL only", "fair": "same network in both arms"}[contrast]


def statements(study: Study) -> list[tuple[str, str]]:
    """Headline and certainty of every comparison, the fair one first; one that says why not."""
    return [
        (headline(study, contrast), certainty(study, contrast)) for contrast in study.comparisons
    ] or [(_without_comparison(study), "")]


def headline(study: Study, contrast: Contrast) -> str:
    """State what ISL pretraining brought at the smallest N, or that it brought nothing."""
    compared = study.comparisons[contrast]["crops"][0]
    if math.isnan(compared.gain):
        return _without_comparison(study, (compared.baseline, ISL))
    isl, baseline = (study.score(arm, compared.n, "crops") for arm in (ISL, compared.baseline))
    start = f"With {images(compared.n)}, ISL pretraining"
    told = "; ".join(filter(None, (percent(compared.gain), contrast_name(study, contrast))))
    reaches = f"{METRIC_NAMES[study.metric]} {isl} where {arm_name(compared.baseline)} reaches "
    reaches += f"{baseline} ({told})"
    if isl.mean > baseline.mean:
        return f"{start} reaches {reaches}."
    return f"{start} did not help here: it reaches {reaches}."


def _without_comparison(study: Study, arms: Sequence[str] = ()) -> str:
    n = study.n[0]
    known = [
        f"{arm_name(arm)} reaches {METRIC_NAMES[study.metric]} {score}"
        for arm in arms or study.arms
        if (score := study.score(arm, n, "crops")).count
    ]
    if not known:
        return f"No run with {images(n)} has been scored yet."
    return f"With {images(n)}, {' and '.join(known)}; there is nothing to compare with."


def certainty(study: Study, contrast: Contrast) -> str:
    """How sure the headline is: interval and test over fields, agreement of the seeds."""
    compared = study.comparisons[contrast]["crops"][0]
    if not compared.num_fields:
        return ""
    by_seed = study.seed_differences(compared.baseline, compared.n, "crops")
    over = counted(compared.num_fields, "withheld field")
    if len(by_seed) == 1:
        repeats = "With a single seed it is not known how much repeated runs differ."
    else:
        ahead = sum(difference > 0 for difference in by_seed.values())
        repeats = f"ISL pretraining is ahead in {ahead} of {len(by_seed)} seeds."
    if math.isnan(compared.interval.low):
        return f"Tested on {over}: too few for an interval or a test. {repeats}"
    drawn = "" if compared.num_seeds == 1 else f" and {counted(compared.num_seeds, 'seed')}"
    told = (
        f"The mean difference over {over}{drawn} is {signed(compared.difference)} "
        f"(95 % interval {interval_text(compared.interval)}; Wilcoxon signed-rank of the fields "
        f"{p_text(compared.p, 'p ')}, Holm-corrected). "
    )
    smallest = 2.0 ** (1 - compared.num_fields)
    if compared.interval.low <= 0 <= compared.interval.high:
        verdict = "The interval includes 0: this may be chance."
    elif compared.p < SIGNIFICANT:
        verdict = "Another choice of fields would hardly turn it round."
    elif smallest > SIGNIFICANT:
        verdict = f"No test of {over} can give a p below {smallest:.2g}: more are needed."
    else:
        verdict = "The interval excludes 0, the test does not confirm it: take it with care."
    return f"{told}{verdict} {repeats}"


def annotations_saved(study: Study) -> list[str]:
    """How many annotations the baseline needs to reach what ISL reaches at N = 1 and 10."""
    if len(study.n) < 2 or study.baseline is None or ISL not in study.arms:
        return []
    sentences = []
    name = arm_name(study.baseline)
    start = name[0].upper() + name[1:]
    most = study.n[-1]
    for n in (m for m in study.n if m in (1, 10) and m != most):
        if not study.score(ISL, n, "crops").count:
            continue
        reached = f"what ISL pretraining reaches with {in_words(n)}"
        needed = study.annotations_needed(n, "crops")
        if needed is None:
            told = f"does not reach with up to {images(most)} {reached}"
        elif needed <= n:
            told = f"needs no more images to reach {reached}"
        else:
            told = f"needs about {needed:.0f} annotated images to reach {reached}"
        sentences.append(f"{start} {told}.")
    return sentences


def other_programs(study: Study) -> list[str]:
    """Where the scores of other programs stand on the learning curve of ISL."""
    sentences = []
    for other in study.others:
        score = other.score(study.metric, "crops")
        told = f"{other.name} reaches {METRIC_NAMES[study.metric]} {score} on the same crops"
        if ISL in study.arms and study.score(ISL, study.n[-1], "crops").count:
            needed = study.annotations_to_reach(score.mean, "crops")
            if needed is None:
                told += f"; ISL pretraining does not with up to {images(study.n[-1])}"
            elif needed <= study.n[0]:
                told += f"; ISL pretraining reaches that with {images(study.n[0])}"
            else:
                told += f"; ISL pretraining reaches that with about {needed:.0f} annotated images"
        sentences.append(f"{told}.")
    return sentences
