"""What the annotator is told: a text for the folder, of what is in it and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from isl_jax.data.store import Dataset


def readme(dataset: Dataset, chosen: Sequence[str], drafts: Mapping[str, tuple[Any, Any]]) -> str:
    """Markdown for a folder with the fields `chosen`, of which some have `drafts`."""
    what = "nucleus" if dataset.study == "nucleus" else "cell"
    first = chosen[0]
    rows = "\n".join(
        f"{k}. `{name}`"
        + (f": draft with {drafts[name][1].objects} objects, {drafts[name][1].word}"
           if name in drafts else "")
        for k, name in enumerate(chosen, start=1)
    )  # fmt: skip
    return _TEXT.format(
        rows=rows, what=what, whats="nuclei" if what == "nucleus" else "cells", first=first
    )


_TEXT = """# To annotate

Begin at the top; after any of them you may stop. `index.html` shows why they were chosen.

{rows}

For each field there are, in the same pixels,

* `…_image.tif`, the label-free image that the network will see,
* `…_stain.tif`, the stain of the same field, if there is one,
* `…_draft.tif`, a first guess at the labels, made from the stain alone (0 is background, every
  object has its own number). No person has looked at it. Where the stain shows nuclei and you want
  cells, it has one nucleus for each cell: the border of the cell is yours to draw.

**The work**: correct the draft until every {what} has one number and every pixel of it that number,
the faint ones and those at the border of the image too, then save it beside the image as

    {first}_masks.tif

and so on. Keep the size of the image, and save whole numbers of 16 bits (no JPEG, no colours). A
field without that file counts as not annotated, whatever its draft looks like. Do not save over the
draft.

## napari

Drag `…_image.tif` and `…_stain.tif` into the window, then `…_draft.tif`; right-click its layer,
*Convert to Labels*. `2` paints, `1` erases, `3` fills, `4` picks the number under the pointer, `m`
takes the next free number. *File › Save Selected Layer…* as `…_masks.tif`.

## Fiji

Open image and draft. With the Labkit or MorphoLibJ plugins labels can be painted; *Edit ›
Selection › Image to Selection* and the wand (tolerance 0) pick one object, *Edit › Fill* with the
number as foreground value draws. *File › Save As › Tiff…* as `…_masks.tif`.

## Cellpose

Open `…_stain.tif` (or the image) in its window; *File › Load masks* takes the draft. Correct, and
save with Ctrl+S: `…_stain_seg.npy` or `…_image_seg.npy` is read as it is.

## Back

    isl-prepare --source=THIS_FOLDER --out=NEW_DATA

writes the data set again with the new labels; fields that were not annotated stay as they were.
"""
