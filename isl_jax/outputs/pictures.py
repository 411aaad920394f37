"""What was found, drawn over the image: one PNG an image, and a page of all of them."""

import base64
import hashlib
import html
import os
import string
from collections.abc import Iterable, Mapping
from pathlib import Path

import imagecodecs
import numpy as np

from isl_jax.files import write_bytes, write_text
from isl_jax.inference.folder import Record
from isl_jax.inference.large import ImageLike, release

# Longest side of a picture; larger images are thinned out.
_LONGEST = 4096
_THUMBNAIL = 360


def write_overlay(
    path: Path, planes: ImageLike | None, labels: np.ndarray | None, shown: np.ndarray
) -> None:
    """Write a PNG of the first of `planes`, or else of `shown` `[H, W]`, outlined by `labels`."""
    write_bytes(path, bytes(imagecodecs.png_encode(overlay(planes, labels, shown))))


def overlay(planes: ImageLike | None, labels: np.ndarray | None, shown: np.ndarray) -> np.ndarray:
    """RGB uint8 `[h, w, 3]`: grey values between percentiles 0.5 and 99.5, objects outlined.

    Each outline lies inside its object, in the colour of its id; images of more than 4096 pixels
    are shown by every k-th pixel.
    """
    step = max(1, -(-max(shown.shape) // _LONGEST))
    grey = _thinned(shown, step) if planes is None else _thinned_plane(planes, step)
    low, high = np.percentile(grey, [0.5, 99.5])
    scaled = np.clip((grey.astype(np.float32) - low) / max(float(high - low), 1e-12), 0, 1)
    picture = np.repeat((255 * scaled).astype(np.uint8)[..., None], 3, axis=-1)
    if labels is not None:
        ids = _thinned(labels, step)
        edge = _inner_edges(ids)
        picture[edge] = _colours(ids[edge])
    return picture


def _thinned(image: np.ndarray, step: int) -> np.ndarray:
    if step == 1:
        return np.asarray(image)
    bands = []
    for top in range(0, len(image), 256 * step):
        bands.append(np.array(image[top : top + 256 * step : step, ::step]))
        release(image)
    return np.concatenate(bands)


def _thinned_plane(planes: ImageLike, step: int) -> np.ndarray:
    bands = []
    for top in range(0, planes.shape[1], 256 * step):
        bottom = min(top + 256 * step, planes.shape[1])
        band = planes[slice(0, 1), slice(top, bottom), slice(None)]
        bands.append(np.array(band[0, ::step, ::step]))
        release(planes)
    return np.concatenate(bands)


def _inner_edges(ids: np.ndarray) -> np.ndarray:
    edge = np.zeros(ids.shape, bool)
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge & (ids > 0)


def _colours(ids: np.ndarray) -> np.ndarray:
    """A bright colour for each id: hues a golden section apart, so that neighbours differ."""
    hue = (ids * 0.618034) % 1.0
    turns = np.abs((hue[..., None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    return (255 * np.clip(turns, 0.15, 1)).astype(np.uint8)


def write_contact_sheet(folder: Path, records: Iterable[Record], failed: Mapping[str, str]) -> Path:
    """Write `folder/index.html`: a thumbnail of every overlay, what is in it, links to the files.

    The page needs no other file to be looked at; the links lead to those beside it. Names are text
    and nothing else, whatever is in them. Returns its path; ValueError if that is a page of
    somebody else's.
    """
    path = folder / "index.html"
    if path.exists() and _OURS not in path.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"{path}: is another page, it is left as it is; move it away")
    cards = [_card(folder, record) for record in sorted(records, key=lambda r: r.name)]
    faults = "".join(
        f"<li><b>{_text(name)}</b> {_text(reason)}</li>" for name, reason in failed.items()
    )
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    page = _PAGE.format(
        script=_SCRIPT,
        policy=policy,
        ours=_OURS,
        count=len(cards),
        failed=f"<h2>{len(failed)} images failed</h2><ul>{faults}</ul>" if failed else "",
        cards="\n".join(cards),
    )
    write_text(path, page)
    return path


def _text(text: str) -> str:
    """Text as HTML; bytes of a name that are no UTF-8 as question marks."""
    return html.escape(text.encode("utf-8", "replace").decode())


def _link(name: str) -> str:
    """A link to a file beside the page, by the very bytes of its name."""
    plain = frozenset(string.ascii_letters + string.digits + "-_.~")
    try:
        content = os.fsencode(name)
    except UnicodeEncodeError:  # of no file at all
        content = name.encode("utf-8", "replace")
    letters = map(chr, content)
    return "./" + "".join(c if c in plain else f"%{ord(c):02X}" for c in letters)


def _card(folder: Path, record: Record) -> str:
    name = _text(record.name)
    height, width = record.size
    facts = [f"{width} × {height} pixels"]
    if record.binning > 1:
        facts[0] += f" of {record.binning} × {record.binning}"
    if record.num_objects is not None:
        facts.insert(0, f"{record.num_objects} objects")
    links = " ".join(
        f'<a href="{_link(file)}">{_text(file.removeprefix(record.name))}</a>'
        for file in record.files
    )
    picture = folder / f"{record.name}_overlay.png"
    image = ""
    if picture.exists():
        try:
            data = base64.b64encode(_thumbnail(picture)).decode()
            shown = f'<img alt="{name}" loading="lazy" src="data:image/jpeg;base64,{data}">'
        except (ValueError, OSError, RuntimeError):
            shown = "(the picture cannot be read)"
        image = f'<a href="{_link(picture.name)}">{shown}</a>'
    return (
        f'<figure data-name="{name.lower()}">{image}<figcaption><b>{name}</b><br>'
        f"{', '.join(facts)}<br><small>{links}</small></figcaption></figure>"
    )


def _thumbnail(path: Path) -> bytes:
    picture = imagecodecs.png_decode(path.read_bytes())
    factor = -(-max(picture.shape[:2]) // _THUMBNAIL)
    if factor > 1:
        height, width = (max(1, size // factor) for size in picture.shape[:2])
        blocks = picture[: height * factor, : width * factor][:, :, :3]
        blocks = blocks.reshape(height, -1, width, blocks.shape[1] // width, 3)
        picture = blocks.mean(axis=(1, 3)).astype(np.uint8)
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(picture), level=85))


# By this a page is known to be written here.
_OURS = "<title>Predictions</title>"
_SCRIPT = """
document.querySelector("input").addEventListener("input", event => {
  const text = event.target.value.toLowerCase();
  for (const figure of document.querySelectorAll("figure"))
    figure.hidden = !figure.dataset.name.includes(text);
});
"""
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{policy}">
{ours}
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fafafa }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 1rem }}
figure {{ margin: 0; padding: .6rem; background: #fff; border: 1px solid #ddd }}
img {{ width: 100%; display: block }}
figcaption {{ padding-top: .4rem; overflow-wrap: anywhere }}
input {{ font: inherit; padding: .3rem .5rem; margin-bottom: 1rem; width: 20rem; max-width: 100% }}
</style>
<h1>{count} images</h1>
<input type="search" placeholder="show names that contain …" aria-label="filter by name">
<main>
{cards}
</main>
{failed}
<script>{script}</script>
</html>
"""
