"""A folder that the annotator has worked in: which masks are there, and do they fit?"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from isl_jax.files import read_json

# What the folder is about, and by which it is known; what the annotator is told.
RECORD, README = "annotate.json", "README.md"
SCHEMA = 1
_FIELD = {"name": str, "height": int, "width": int, "draft": (str, None)}
_KEYS = {"schema": int, "root": str, "study": str, "fields": [_FIELD]}
# Where masks may be, beside the image: as napari, Fiji and Cellpose save them.
_MASKS = (
    "{}_masks.tif", "{}_masks.tiff", "{}_masks.png", "{}_masks.npy",
    "{}_image_cp_masks.png", "{}_image_cp_masks.tif", "{}_image_seg.npy",
    "{}_stain_cp_masks.png", "{}_stain_cp_masks.tif", "{}_stain_seg.npy",
)  # fmt: skip


def check_free(out: Path, *, overwrite: bool) -> None:
    """ValueError unless `out` may be written: nobody's work is in it."""
    if not out.exists():
        return
    if (out / RECORD).is_file():
        worked_on = [path.name for path in _masks_of(out).values()]
        if worked_on:
            raise ValueError(
                f"{out}: holds masks of {len(worked_on)} fields ({', '.join(worked_on[:3])}), "
                "which are never overwritten; choose another --out, or take them back first with "
                f"isl-prepare --source={out}"
            )
        if overwrite:
            return
    raise ValueError(
        f"{out}: exists already; choose another --out"
        + (", or give --overwrite" if (out / RECORD).is_file() else "")
    )


def is_annotation_folder(folder: Path) -> bool:
    """Whether a folder was written here."""
    return (folder / RECORD).is_file()


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    record = read_json(path, remedy="make the folder again with isl-annotate", keys=_KEYS)
    if record["schema"] != SCHEMA:
        raise ValueError(
            f"{path}: has schema {record['schema']}, this version reads {SCHEMA}; install the "
            "version that wrote it"
        )
    return record


def root_of(folder: Path) -> Path:
    """The data set whose fields are in the folder."""
    return Path(_record(folder)["root"])


def _masks_of(folder: Path) -> dict[str, Path]:
    """Field → the file with its masks, or a draft that was drawn over; ValueError if several."""
    found = {}
    for field in _record(folder)["fields"]:
        name = field["name"]
        there = [path for form in _MASKS if (path := folder / form.format(name)).is_file()]
        if len(there) > 1:
            raise ValueError(
                f"{folder}: field {name!r} has masks in {there[0].name} and in {there[1].name}; "
                "keep one"
            )
        draft = folder / f"{name}_draft.tif"
        if there:
            found[name] = there[0]
        elif field["draft"] and draft.is_file() and digest_of(_read(draft)) != field["draft"]:
            found[name] = draft
    return found


def returned_masks(
    folder: Path, read: Callable[[Path], np.ndarray]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Field → labels int32 [H, W] that the annotator drew; and names of the fields not annotated.

    Labels are below 0 where they say nothing.
    `read`: a function from a file to labels. A field counts as annotated if there is a mask file of
    it: `<field>_masks.tif`, or what Cellpose saves beside its image or stain. Raises ValueError
    where masks are of another size, without an object, or missing beside a draft that was drawn
    over, and where no field is annotated.
    """
    record, files = _record(folder), _masks_of(folder)
    found, untouched = {}, []
    for field in record["fields"]:
        name = field["name"]
        path = files.get(name)
        if path is None:
            untouched.append(name)
            continue
        if path.name == f"{name}_draft.tif":
            raise ValueError(
                f"{path}: was changed; when the field is done, save it as {name}_masks.tif, which "
                "says that every object in it is right"
            )
        labels = read(path)
        if labels.shape != (field["height"], field["width"]):
            raise ValueError(
                f"{path}: is {labels.shape[0]} × {labels.shape[1]} pixels, the image is "
                f"{field['height']} × {field['width']}; draw on the image of this folder"
            )
        if not (labels > 0).any():
            raise ValueError(f"{path}: holds no object; remove it if the field is not annotated")
        found[name] = labels
    if not found:
        raise ValueError(
            f"{folder}: no field is annotated yet; save the masks of each as "
            f"{record['fields'][0]['name']}_masks.tif and so on ({README} tells how)"
        )
    return found, untouched


def unchanged_drafts(folder: Path, masks: Mapping[str, np.ndarray]) -> Sequence[str]:
    """Names of the fields whose masks are their draft, pixel for pixel."""
    drafts = {field["name"]: field["draft"] for field in _record(folder)["fields"]}
    return [name for name, labels in masks.items() if digest_of(labels) == drafts[name]]


def _read(path: Path) -> np.ndarray:
    try:
        return tifffile.imread(path)
    except Exception as error:  # whatever a damaged file makes the parser raise
        raise ValueError(f"{path}: cannot be read ({error}); remove it") from error


def digest_of(labels: np.ndarray) -> str:
    """Tells labels [H, W] from any other, whatever their dtype."""
    return hashlib.sha256(np.ascontiguousarray(labels, np.int32).tobytes()).hexdigest()
