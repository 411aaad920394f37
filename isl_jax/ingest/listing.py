"""Which files below a folder are images: not those that a program left beside them."""

import json
import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from isl_jax.data.description import DESCRIPTION
from isl_jax.data.store import FIELDS_DIR
from isl_jax.ingest.ome_zarr import is_zarr, list_zarr_images
from isl_jax.ingest.tiff import TIFF_SUFFIXES

IMAGE_SUFFIXES = (*TIFF_SUFFIXES, ".png", ".npy", ".zarr")

# What Cellpose writes for image x: x_seg.npy and x_cp_masks.* always, the others beside x only,
# since anybody may call an image x_flows.
_CELLPOSE = re.compile(r"_seg\.npy$|_cp_masks\.\w+$|_cp_output\.\w+$", re.IGNORECASE)
_BESIDE_IMAGE = re.compile(r"(?P<image>.+)_(?:flows|dP|outlines|cp_outlines)\.\w+$", re.IGNORECASE)
_STEM = re.compile(r"(\.ome)?\.[^.]+$", re.IGNORECASE)
# Where isl-predict notes what it wrote.
_RECORDS = "records"


def image_stem(path: Path) -> str:
    """The name of an image without its suffix: `x` of x.tif, x.ome.tif and x.ome.zarr."""
    return _STEM.sub("", path.name)


def stem_of_image(path: Path) -> str | None:
    """`image_stem` of an image, None of any other file."""
    return image_stem(path) if _is_image(path.name) else None


def find_image(folder: Path, stem: str) -> Path | None:
    """The image file of that name in a folder, whatever its suffix; the first in name order."""
    found = (
        path
        for path in sorted(Path(folder).iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and image_stem(path) == stem
    )
    return next((path for path in found if is_zarr(path) or _is_regular(path)), None)


def is_prepared(folder: Path) -> bool:
    """Whether a folder is a prepared data set of ours; nnU-Net has a dataset.json of its own."""
    return (folder / DESCRIPTION).is_file() and (folder / FIELDS_DIR).is_dir()


def predicted_in(folder: Path) -> frozenset[str]:
    """Names of what isl-predict wrote, or began to write, into a folder: other files are images."""
    names: set[str] = set()
    # Of images that are done, and of those that a run was killed at.
    for path in [*(folder / _RECORDS).glob("*.json"), *(folder / _RECORDS).glob(".*.begun.json")]:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            found = [*record.get("files", ()), *(record.get("written") or ())]
            names.update(name for name in found if isinstance(name, str))
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            continue
    return frozenset(names)


def is_left_over(path: Path, beside: Collection[str] = ()) -> bool:
    """Whether Cellpose wrote a file; `beside`: stems of the images in its folder."""
    match = _BESIDE_IMAGE.fullmatch(path.name)
    return bool(_CELLPOSE.search(path.name) or (match and match["image"] in beside))


def list_images(folder: Path, *, left_over: bool = False) -> Iterator[Path]:
    """All image files below a folder in name order, linked folders too, each real folder once.

    Passed over are hidden files, what is no regular file (pipes, sockets, devices), prepared data
    sets, what isl-predict wrote and, unless `left_over`, what Cellpose wrote beside an image. A
    Zarr folder counts as one image, or as those that it holds; a plate as one image a field.
    """
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = Path(parent)
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen or is_prepared(here):
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        predicted = predicted_in(here) if _RECORDS in folders else frozenset()
        groups = {name for name in folders if is_zarr(here / name)}
        folders[:] = sorted(name for name in set(folders) - groups if not name.startswith("."))
        stems = {image_stem(Path(name)) for name in files if _is_image(name)}
        for name in sorted([*files, *groups]):
            path = here / name
            if name.startswith(".") or name in predicted:
                continue
            if name in groups:
                yield from list_zarr_images(path)
            elif (
                _is_image(name)
                and _is_regular(path)
                and (left_over or not is_left_over(path, stems))
            ):
                yield path


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:  # a link that leads nowhere, or no permission: named when it is opened
        return True
