"""Figures of the report: box plots, learning curves, and pictures of what was segmented.

Drawn on `Figure` objects without pyplot, so that nothing global is touched. Colours are those of
Okabe and Ito, which colour-blind readers can tell apart.
"""

import base64
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import NullLocator
from skimage.segmentation import find_boundaries

from isl_jax.instances.matching import match
from isl_jax.report.statistics import Interval
from isl_jax.report.wording import ARM_NAMES, METRIC_NAMES, arm_name

# A control beside its baseline.
ARM_COLOURS = dict(
    zip(ARM_NAMES, ("#E69F00", "#D55E00", "#CC79A7", "#882255", "#0072B2"), strict=True)
)
# Other programs have names of their own.
_OTHER_COLOURS = ("#666666", "#009E73", "#56B4E9", "#000000")
# Of the pixels of a semantic mask: rightly found, missed, wrongly found.
HIT, MISSED, EXTRA = "#009E73", "#56B4E9", "#D55E00"
_OBJECTS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#CC79A7", "#D55E00")
_UNMATCHED = "#FFFFFF"

_PLOT_SIZE = (5.0, 3.8)
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "isl_jax",
    "savefig.facecolor": "white",
    "text.parse_math": False,  # names are text, dollars included
}


def box_plot(scores: Mapping[str, Sequence[float]], *, metric: str, title: str) -> Figure:
    """Figures 7a and 9a: one box for each arm, every image a dot; the diamond is the mean."""
    rng = np.random.default_rng(0)
    colours = _colours(scores)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_PLOT_SIZE, layout="constrained")
        axes = figure.subplots()
        for place, (arm, values) in enumerate(scores.items()):
            colour = colours[arm]
            places = place + rng.uniform(-0.2, 0.2, size=len(values))
            # Thousands of dots become a haze behind the box, a few stay dots.
            alpha = min(0.6, 150 / max(len(values), 1))
            axes.plot(places, values, ".", color=colour, alpha=alpha, markersize=4, zorder=1)
            axes.boxplot(
                [list(values)],
                positions=[place],
                widths=0.5,
                showfliers=False,
                showmeans=True,
                patch_artist=True,
                boxprops={"facecolor": colour + "33", "edgecolor": colour},
                medianprops={"color": colour, "linewidth": 2},
                whiskerprops={"color": colour},
                capprops={"color": colour},
                meanprops={"marker": "D", "markerfacecolor": "black", "markeredgecolor": "white"},
                zorder=2,
            )
        # Long names of many boxes stand below each other.
        names = [arm_name(arm).replace(" ", "\n", 1) for arm in scores]
        axes.set_xticks(range(len(scores)), names)
        axes.set_ylabel(METRIC_NAMES[metric])
        axes.set_ylim(0, _ceiling([max(values, default=0) for values in scores.values()]))
        axes.set_title(title, fontsize=10)
        axes.grid(axis="y", alpha=0.3)
    return figure


def learning_curves(
    n: Sequence[int],
    means: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Sequence[Interval]],
    *,
    metric: str,
    title: str,
    seeds: Mapping[str, Sequence[Sequence[float]]] | None = None,
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """Figures 7b and 9b: mean score against N for each arm, with its band where there is one.

    `seeds` are the mean scores of single runs at each N, drawn as dots; `levels` scores that need
    no annotated image, drawn as dashed lines.
    """
    levels = levels or {}
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_PLOT_SIZE, layout="constrained")
        axes = figure.subplots()
        for arm, values in means.items():
            colour = ARM_COLOURS[arm]
            axes.plot(n, values, "o-", color=colour, label=arm_name(arm))
            low = [interval.low for interval in intervals[arm]]
            high = [interval.high for interval in intervals[arm]]
            axes.fill_between(n, low, high, color=colour, alpha=0.18, linewidth=0)
            for number, of_runs in zip(n, (seeds or {}).get(arm, ()), strict=False):
                axes.plot([number] * len(of_runs), of_runs, ".", color=colour, alpha=0.5, zorder=1)
        colours = _colours(levels)
        for name, level in levels.items():
            axes.axhline(level, color=colours[name], linestyle="--", label=arm_name(name))
        axes.set_xscale("log")
        axes.set_xticks(n, [str(number) for number in n])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("annotated images, N")
        axes.set_ylabel(f"mean {METRIC_NAMES[metric]}")
        highs = [interval.high for of_arm in intervals.values() for interval in of_arm]
        axes.set_ylim(
            0, _ceiling([*highs, *levels.values(), *(m for v in means.values() for m in v)])
        )
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def training_curves(curves: Sequence[tuple[str, Sequence[tuple[int, float]]]]) -> Figure:
    """Loss by step of runs, each given as (arm, [(step, loss), …]), on a logarithmic axis."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_PLOT_SIZE, layout="constrained")
        axes = figure.subplots()
        named: set[str] = set()
        for arm, points in curves:
            # Matplotlib leaves labels that begin with an underscore out of the legend.
            label = f"_{arm}" if arm in named else arm_name(arm)
            named.add(arm)
            steps, losses = zip(*points, strict=True)
            axes.plot(steps, losses, color=ARM_COLOURS[arm], alpha=0.8, linewidth=1, label=label)
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_ylabel("training loss")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def panels(rows: Sequence[Mapping[str, np.ndarray]], names: Sequence[str]) -> Figure:
    """Figures 8 and 10: one row of pictures (RGB `[H, W, 3]` uint8 by caption) for each field."""
    captions = list(rows[0])
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(2.1 * len(captions), 2.25 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), len(captions), squeeze=False)
        for axes_row, pictures, name in zip(grid, rows, names, strict=True):
            for axes, caption in zip(axes_row, captions, strict=True):
                if caption in pictures:
                    axes.imshow(pictures[caption], interpolation="none")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
            axes_row[0].set_ylabel(name, fontsize=8)
        for axes, caption in zip(grid[0], captions, strict=True):
            axes.set_title(caption, fontsize=8)
    return figure


def grey(image: np.ndarray, *, limits: tuple[float, float] | None = None) -> np.ndarray:
    """Grey picture uint8 `[H, W, 3]` of a plane; black to white over `limits` or 0.5–99.5 %."""
    values = np.asarray(image, np.float32)
    low, high = limits or tuple(float(v) for v in np.percentile(values, [0.5, 99.5]))
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return np.repeat((255 * scaled).astype(np.uint8)[..., None], 3, axis=-1)


def semantic_overlay(picture: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Picture with pixels rightly found, missed and wrongly found (bool masks `[H, W]`)."""
    found = [(mask & truth, HIT), (~mask & truth, MISSED), (mask & ~truth, EXTRA)]
    painted = picture.astype(np.float32)
    for where, colour in found:
        painted[where] = 0.45 * painted[where] + 0.55 * _rgb(colour)
    edge = find_boundaries(mask, mode="inner")
    painted[edge] = 255
    return painted.astype(np.uint8)


def instance_overlay(picture: np.ndarray, labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Picture with objects filled and outlined: each in the colour of the true one it matches.

    A match is an IoU of at least 0.5; what matches no true object is white. `labels` and `truth`
    int `[H, W]`; give the truth as both to paint it.
    """
    pairs = match(truth, labels, thresholds=0.5).pairs
    true_of = dict(zip(pairs[:, 1].tolist(), pairs[:, 0].tolist(), strict=True))
    ids = np.unique(labels[labels > 0])
    colours = np.array(
        [
            _rgb(_OBJECTS[true_of[i] % len(_OBJECTS)] if i in true_of else _UNMATCHED)
            for i in ids.tolist()
        ]
    ).reshape(-1, 3)
    inside = labels > 0
    painted = picture.astype(np.float32)
    colour = colours[np.searchsorted(ids, labels[inside])]
    painted[inside] = 0.55 * painted[inside] + 0.45 * colour
    edge = find_boundaries(labels, mode="inner") & inside
    painted[edge] = colours[np.searchsorted(ids, labels[edge])]
    return painted.astype(np.uint8)


def save(figure: Figure, path: Path) -> str:
    """Write a figure as `path`.png and `path`.svg; returns the SVG as a data URI."""
    with mpl.rc_context(_STYLE):
        figure.savefig(path.with_suffix(".png"), dpi=160)
        # No date: the same results give the same file.
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return _data_uri(path.with_suffix(".svg").read_bytes(), "image/svg+xml")


def picture_uri(picture: np.ndarray) -> str:
    """JPEG data URI of an RGB picture uint8 `[H, W, 3]`."""
    buffer = io.BytesIO()
    imsave(buffer, picture, format="jpg", pil_kwargs={"quality": 88})
    return _data_uri(buffer.getvalue(), "image/jpeg")


def _colours(arms: Iterable[str]) -> dict[str, str]:
    others = itertools.cycle(_OTHER_COLOURS)
    return {arm: ARM_COLOURS.get(arm) or next(others) for arm in arms}


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _ceiling(values: Sequence[float]) -> float:
    """End of a score axis: the next tenth with room above the highest value, at most 1."""
    highest = max((value for value in values if value == value), default=1.0)
    return float(min(1.0, np.ceil(11 * highest) / 10)) or 1.0


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)
