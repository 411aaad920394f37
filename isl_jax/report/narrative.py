"""What the results say in words, for the page and the terminal."""

import math

from isl_jax.report.figures import INIT_NAMES, METRIC_NAMES
from isl_jax.report.results import Study
from isl_jax.report.statistics import Interval
from isl_jax.study.records import ISL

DASH = "–"
SIGNIFICANT = 0.05
_NUMBER_WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def percent(gain: float) -> str:
    """Relative gain as `+31 %`, with a true minus sign."""
    if math.isnan(gain):
        return DASH
    text = f"{100 * gain:+.1f} %".replace("-", "−")
    return "0.0 %" if text[1:] == "0.0 %" else text


def interval_text(interval: Interval) -> str:
    """Interval of a difference as `−0.021 … +0.154`."""
    if math.isnan(interval.low):
        return DASH
    return f"{_signed(interval.low)} … {_signed(interval.high)}"


def p_text(p: float, name: str = "") -> str:
    """P value with two digits that count; with a `name`, as `p = 0.03` or `p < 0.001`."""
    if math.isnan(p):
        return f"{name}{DASH}"
    small = p < 0.001
    sign = ("< " if small else "= ") if name else ("< " if small else "")
    return f"{name}{sign}{'0.001' if small else format(p, '.2g')}"


def images(n: int) -> str:
    """`one annotated image`, `10 annotated images`."""
    return f"{_NUMBER_WORDS.get(n, n)} annotated image{'s' if n > 1 else ''}"


def headline(study: Study) -> str:
    """State what ISL pretraining brought at the smallest N, or that it brought nothing."""
    compared = study.comparisons["crops"][0]
    metric = METRIC_NAMES[study.metric]
    isl = compared.scores.get(ISL)
    if study.baseline is None or isl is None or math.isnan(compared.gain):
        known = [
            f"{INIT_NAMES[init]} reaches {metric} {score}"
            for init, score in compared.scores.items()
            if score.count
        ]
        return (
            f"With {images(compared.n)}, {' and '.join(known)}; there is nothing to compare with."
            if known
            else f"No run with {images(compared.n)} has been scored yet."
        )
    other = INIT_NAMES[study.baseline]
    baseline = compared.scores[study.baseline]
    start = f"With {images(compared.n)}, ISL pretraining"
    reaches = f"{metric} {isl} where {other} reaches {baseline} ({percent(compared.gain)})"
    if isl.mean > baseline.mean:
        return f"{start} reaches {reaches}."
    return f"{start} did not help here: it reaches {reaches}."


def certainty(study: Study) -> str:
    """How sure the headline is: interval and test over fields, agreement of the seeds."""
    compared = study.comparisons["crops"][0]
    if not compared.num_fields:
        return ""
    by_seed = study.seed_differences(compared.n, "crops")
    over = _counted(compared.num_fields, "withheld field")
    if len(by_seed) == 1:
        repeats = "With a single seed it is not known how much repeated runs differ."
    else:
        ahead = sum(difference > 0 for difference in by_seed.values())
        repeats = f"ISL pretraining is ahead in {ahead} of {len(by_seed)} seeds."
    if math.isnan(compared.interval.low):
        return f"Tested on {over}: too few for an interval or a test. {repeats}"
    told = (
        f"The mean difference over {over} is {_signed(compared.difference)} "
        f"(95 % interval {interval_text(compared.interval)}; Wilcoxon signed-rank "
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
    if len(study.n) < 2 or study.baseline is None or ISL not in study.inits:
        return []
    sentences = []
    name = INIT_NAMES[study.baseline]
    start = name[0].upper() + name[1:]
    most = study.n[-1]
    for n in (m for m in study.n if m in (1, 10) and m != most):
        if not study.score(ISL, n, "crops").count:
            continue
        reached = f"what ISL pretraining reaches with {_NUMBER_WORDS.get(n, n)}"
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
        if ISL in study.inits and study.score(ISL, study.n[-1], "crops").count:
            needed = study.annotations_to_reach(score.mean, "crops")
            if needed is None:
                told += f"; ISL pretraining does not with up to {images(study.n[-1])}"
            elif needed <= study.n[0]:
                told += f"; ISL pretraining reaches that with {images(study.n[0])}"
            else:
                told += f"; ISL pretraining reaches that with about {needed:.0f} annotated images"
        sentences.append(f"{told}.")
    return sentences


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
