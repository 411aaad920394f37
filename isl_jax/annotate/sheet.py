"""The contact sheet of a suggestion: one page with pictures, reasons and a map of all fields."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from imagecodecs import jpeg_encode

from isl_jax.annotate.drafting import Quality
from isl_jax.data.preview import panels
from isl_jax.data.store import Dataset
from isl_jax.files import write_text
from isl_jax.study.choice import Suggestion

# Sides of the map, and how much of it is left free around the fields, pixels.
_MAP = 420, 30
# Fields after the chosen ones that the page lists by name.
_LISTED = 200


def write_sheet(
    path: Path,
    dataset: Dataset,
    suggestion: Suggestion,
    drafts: Mapping[str, tuple[np.ndarray, Quality]],
    count: int,
) -> None:
    """Write the page: the first `count` fields of the order with their pictures, then the others.

    `drafts`: label image and quality of those that have one. The page needs no other file and no
    network; names are text and nothing else.
    """
    chosen = suggestion.order[:count]
    cards = []
    for number, item in enumerate(chosen, start=1):
        labels, worth = drafts.get(item.name, (None, None))
        picture = panels(dataset, dataset.field(item.name), labels)
        told = "" if worth is None else f"<br>Draft: {_told(worth)}."
        cards.append(
            f"<figure>{_image(picture, item.name)}<figcaption><b>{number}. "
            f"{html.escape(item.name)}</b><br>{html.escape(item.reason)}.{told}"
            "</figcaption></figure>"
        )
    rest = suggestion.order[count : count + _LISTED]
    rows = "".join(
        f"<tr><td>{count + k}<td>{html.escape(item.name)}<td>{html.escape(item.reason)}"
        for k, item in enumerate(rest, start=1)
    )
    rows += "".join(
        f"<tr><td>–<td>{html.escape(name)}<td>left out: {html.escape(fault)}"
        for name, fault in suggestion.excluded.items()
    )
    page = _PAGE.format(
        seen_by=html.escape(suggestion.seen_by),
        map=_map(suggestion, [item.name for item in chosen]),
        cards="\n".join(cards),
        rest=f"<h2>The others</h2><table>{rows}</table>" if rows else "",
    )
    write_text(path, page)


def _told(worth: Quality) -> str:
    return (
        f"{worth.objects} objects, {worth.word} ({worth.explained:.0%} of the stain's signal is in "
        f"them, {worth.unlikely:.0%} are of unlikely size)"
    )


def _image(picture: np.ndarray, name: str) -> str:
    data = base64.b64encode(jpeg_encode(np.ascontiguousarray(picture), level=80)).decode()
    alt = f"input, stain and draft of {html.escape(name)}"
    return f'<img alt="{alt}" src="data:image/jpeg;base64,{data}">'


def _map(suggestion: Suggestion, chosen: Sequence[str]) -> str:
    """All fields as dots, the chosen ones numbered, as SVG."""
    side, margin = _MAP
    names = list(suggestion.places)
    if not names:
        return ""
    points = np.array([suggestion.places[name] for name in names])
    # One scale for both directions: distances on the map are to be compared.
    span = max(float(np.ptp(points, axis=0).max()), 1e-9)
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    at = side / 2 + (points - middle) / span * (side - 2 * margin)
    dots = []
    for name, (x, y) in zip(names, at, strict=True):
        title = f"<title>{html.escape(name)}</title>"
        place = f'cx="{x:.1f}" cy="{side - y:.1f}"'
        if name in chosen:
            number = chosen.index(name) + 1
            dots.append(
                f'<circle {place} r="11" class="chosen">{title}</circle>'
                f'<text x="{x:.1f}" y="{side - y + 4:.1f}">{number}</text>'
            )
        else:
            dots.insert(0, f'<circle {place} r="4">{title}</circle>')
    return f'<svg width="{side}" height="{side}" role="img">{"".join(dots)}</svg>'


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Fields to annotate</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fafafa }}
figure {{ margin: 0 0 1rem; padding: .6rem; background: #fff; border: 1px solid #ddd;
  max-width: 1000px }}
img {{ width: 100%; display: block }}
figcaption {{ padding-top: .4rem; overflow-wrap: anywhere }}
svg {{ background: #fff; border: 1px solid #ddd }}
circle {{ fill: #9ab; }} .chosen {{ fill: #c50; }}
text {{ fill: #fff; text-anchor: middle; font-size: 12px; font-weight: bold; pointer-events: none }}
td {{ padding: .1rem .8rem .1rem 0; vertical-align: top }}
</style>
<h1>Fields to annotate</h1>
<p>In this order; each picture shows the input, the stain, and the draft (or what there is of them).
The map shows all fields that were compared: near ones look alike (first two principal components;
{seen_by}).</p>
{map}
<h2>The chosen</h2>
{cards}
{rest}
</html>
"""
