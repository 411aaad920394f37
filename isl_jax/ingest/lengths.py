"""Lengths as files spell them, in µm; what is no length is unknown."""

import math
import re
from typing import Any

# SI prefixes as symbols (case counts) and as words (it does not), in metres.
_SYMBOLS = {"": 1.0, "k": 1e3, "d": 1e-1, "c": 1e-2, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9,
            "p": 1e-12, "f": 1e-15}  # fmt: skip
_WORDS = {"": 1.0, "kilo": 1e3, "deci": 1e-1, "centi": 1e-2, "milli": 1e-3, "micro": 1e-6,
          "nano": 1e-9, "pico": 1e-12, "femto": 1e-15}  # fmt: skip
_OTHERS = {
    "micron": 1e-6, "angstrom": 1e-10, "ångström": 1e-10, "ångstrom": 1e-10, "å": 1e-10,
    "inch": 0.0254, "inches": 0.0254, "in": 0.0254, '"': 0.0254, "thou": 2.54e-5, "mil": 2.54e-5,
    "foot": 0.3048, "ft": 0.3048, "yard": 0.9144, "yd": 0.9144, "pt": 0.0254 / 72,
}  # fmt: skip


def micrometres(unit: object) -> float | None:
    """A unit of length in µm (`µm`, `nanometer`, `Å`, `inch`, …); None for others and pixels."""
    text = str(unit).strip().replace("\\u00B5", "µ").replace("μ", "µ").replace("\u212b", "å")
    if text.endswith("m") and text[:-1] in _SYMBOLS:
        return _SYMBOLS[text[:-1]] * 1e6
    word = text.casefold().replace("μ", "µ")
    if word == "µm":
        return 1.0
    if word in _OTHERS or word.removesuffix("s") in _OTHERS:
        return _OTHERS.get(word, _OTHERS.get(word.removesuffix("s"), 0)) * 1e6
    match = re.fullmatch(r"(\w*?)(?:meter|metre)s?", word)
    return _WORDS[match[1]] * 1e6 if match and match[1] in _WORDS else None


def spacing_of(y: Any, x: Any, unit_y: object, unit_x: object) -> tuple[float, float] | None:
    """Sides (y, x) of a pixel in µm; None unless both are positive, finite lengths.

    A side that is not told at all (None) is as long as the other.
    """
    y, unit_y = (x, unit_x) if y is None else (y, unit_y)
    x, unit_x = (y, unit_y) if x is None else (x, unit_x)
    try:
        sides = [
            float(side) * (micrometres(unit) or 0) for side, unit in ((y, unit_y), (x, unit_x))
        ]
    except (TypeError, ValueError, OverflowError):
        return None
    sound = all(math.isfinite(side) and side > 0 for side in sides)
    return (sides[0], sides[1]) if sound else None
