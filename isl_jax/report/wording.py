"""What the report calls scores and arms, and how it writes numbers."""

import math

from isl_jax.report.statistics import Interval
from isl_jax.study.records import control_of

METRIC_NAMES = {"iou": "IoU", "map": "mAP", "pcc": "PCC"}
# Arms: their names and colours. A control has the same head as the ISL arm.
ARM_NAMES = {
    "random": "random initialisation",
    control_of("random"): "random initialisation with the same head",
    "imagenet": "ImageNet",
    control_of("imagenet"): "ImageNet with the same head",
    "isl": "ISL pretraining",
}
DASH = "–"
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
    return f"{signed(interval.low)} … {signed(interval.high)}"


def p_text(p: float, name: str = "") -> str:
    """P value with two digits that count; with a `name`, as `p = 0.03` or `p < 0.001`."""
    if math.isnan(p):
        return f"{name}{DASH}"
    small = p < 0.001
    sign = ("< " if small else "= ") if name else ("< " if small else "")
    return f"{name}{sign}{'0.001' if small else format(p, '.2g')}"


def images(n: int) -> str:
    """`one annotated image`, `10 annotated images`."""
    return f"{in_words(n)} annotated image{'s' if n > 1 else ''}"


def arm_name(arm: str) -> str:
    """What the report calls an arm, or another program."""
    return ARM_NAMES.get(arm, arm)


def in_words(n: int) -> str:
    """`one` to `six`, then digits."""
    return str(_NUMBER_WORDS.get(n, n))


def counted(number: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def signed(value: float) -> str:
    """Difference of scores as `−0.021`."""
    return f"{value:+.3f}".replace("-", "−")
