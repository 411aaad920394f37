"""Take back a folder of `isl-annotate` with the masks drawn: its data set, with the new labels."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.annotate.returned import returned_masks, root_of, unchanged_drafts
from isl_jax.data.relabelled import with_labels
from isl_jax.data.store import open_dataset
from isl_jax.ingest.labels import count_pieces, read_drawn_labels
from isl_jax.locks import locked


def take_back(options: Mapping[str, Any]) -> None:
    """Do what `options`, those given to `isl-prepare`, ask for with the folder `source`.

    `out` is written; without it, or for a `dry_run`, what would be done is told. `root`: the data
    set, if it was moved; `ignore`: the label of pixels that are not annotated. Raises ValueError or
    FileNotFoundError in one line, with nothing written, for other options, masks that do not fit,
    where nothing is annotated yet, or where the data set is gone.
    """
    folder = Path(options["source"])
    unused = sorted(options.keys() - {"source", "out", "root", "overwrite", "dry_run", "ignore"})
    if unused:
        raise ValueError(
            f"--{unused[0]}: {folder} is a folder of isl-annotate, whose data set is prepared "
            "already; give --out, --ignore, and --root if the data set was moved"
        )
    root = Path(options["root"]) if options.get("root") else root_of(folder)
    out = None if options.get("dry_run") or not options.get("out") else Path(options["out"])
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: the data set that {folder} was made from is not there; give --root, where it "
            "is now"
        )
    dataset = open_dataset(root)
    masks, untouched = returned_masks(
        folder, partial(read_drawn_labels, ignore=options.get("ignore"))
    )
    for name, labels in masks.items():
        _check_pieces(folder, name, labels, dataset.study)
        print(f"  {name}: {len(np.unique(labels[labels > 0]))} objects")
    for name in unchanged_drafts(folder, masks):
        print(f"  {name}: is the draft, pixel for pixel")
    if untouched:
        print(f"  not annotated: {', '.join(untouched)}")
    if out is None:
        print(f"{folder}: {len(masks)} fields are annotated; give --out to write the data set")
        return
    with locked(out, "choose another --out", replaces=True):
        if out.exists() and (not options.get("overwrite") or out.resolve() == root.resolve()):
            raise ValueError(f"{out}: exists already; choose another --out")
        with_labels(dataset, masks, out, source=str(folder.resolve()))
    labelled = len(open_dataset(out).select("train", labels=True))
    print(f"{out}: {root} with labels of {len(masks)} fields more; {labelled} to train on")


def _check_pieces(folder: Path, name: str, labels: np.ndarray, study: str) -> None:
    ids, in_pieces = count_pieces(labels)
    if study == "cell" and 2 * in_pieces > ids:
        raise ValueError(
            f"{folder}: the masks of {name!r} have {ids} ids, {in_pieces} of them in several "
            "pieces, expected an id of its own for each cell; number the cells"
        )
