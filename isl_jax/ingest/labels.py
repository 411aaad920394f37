"""Instance labels of a field, whatever they were drawn as: ids, or masks that have no ids."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from isl_jax.ingest.fields import Part, RawField
from isl_jax.ingest.images import AskForError, ImageInfo
from isl_jax.ingest.layouts import label_channels
from isl_jax.ingest.readers import ImageFiles

# Slips of the pen, smaller than any cell or nucleus that is drawn by hand.
_SMALLEST = 50
_LARGEST = int(np.iinfo(np.int32).max)
# Of pixels that nobody has said anything about, in what `read_labels` gives.
IGNORED = -1
_USUAL = 65535  # by which they are drawn
_SAY_SO = ", or say that they are"


def label_info(part: Part, files: ImageFiles) -> ImageInfo:
    """What a file of labels holds; ValueError if it is drawn in colours or has other channels."""
    try:
        info = part.open(files, index=True).info
    except AskForError:
        raise ValueError(
            f"{part.path}: labels are a colour image, expected one number an object; save the ids "
            "themselves as a grey image, not the colours that a viewer gives them"
        ) from None
    if part.channel is None and len(info.channels) > 1:
        raise ValueError(
            f"{part.path}: labels have {len(info.channels)} channels "
            f"({', '.join(info.channels)}), expected one; save a 2-D mask"
        )
    return info


def check_labels(headers: Sequence[tuple[Part, ImageInfo]]) -> None:
    """ValueError in one line unless a channel of labels is one plane of real numbers."""
    path, dtype = headers[0][0].path, headers[0][1].dtype
    if dtype.kind not in "iuf":
        raise ValueError(f"{path}: labels are {dtype}, expected integers; save as uint16")
    planes = sum(info.planes for _, info in headers)
    if planes > 1:
        raise ValueError(f"{path}: labels have {planes} planes, expected one; save a 2-D mask")


def read_label_image(path: Path) -> np.ndarray:
    """Instance ids int32 [H, W] of a file of its own, such as another program wrote to be scored.

    Raises ValueError or OSError in one line that names the file.
    """
    try:
        return read_drawn_labels(path)
    except AskForError as error:  # a prediction has an answer everywhere
        raise ValueError(error.fault.removesuffix(_SAY_SO)) from None


def read_drawn_labels(path: Path, *, ignore: int | None = None) -> np.ndarray:
    """Instance ids int32 [H, W] of a file of its own that somebody drew, as `read_labels`."""
    part, files = Part(path), ImageFiles()
    check_labels([(part, label_info(part, files))])
    labels = _plane(part, files)
    return _with_ignored(path, labels, _ignored(path, labels, ignore))


def read_labels(
    field: RawField, text: str, files: ImageFiles | None = None, *, ignore: int | None = None
) -> np.ndarray:
    """Instance ids int32 [H, W], read or made from what `text` (a layout's label) names.

    Pixels of the value `ignore` become IGNORED; ValueError if it lies among the ids.
    """
    files = files or ImageFiles()
    part, *edge = [field.files[channel][0] for channel in label_channels(text)]
    labels = _plane(part, files)
    if edge:
        return instances_from_interior(labels, _plane(edge[0], files))
    ignored = _ignored(part.path, labels, ignore)
    if text.endswith(":components"):
        ids = instances_from_mask(np.where(ignored, 0, labels))
        ids[ignored] = IGNORED
        return ids
    return _with_ignored(part.path, labels, ignored)


def _with_ignored(path: Path, labels: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    ids = _as_ids(path, np.where(ignored, labels.dtype.type(0), labels))
    ids[ignored] = IGNORED
    return ids


def _ignored(path: Path, labels: np.ndarray, ignore: int | None) -> np.ndarray:
    """Where labels [H, W] have the value that stands for pixels to be ignored."""
    if ignore is None:
        return np.zeros(labels.shape, bool)
    ignored = labels == ignore
    # The next lower id is there where ids have grown up to that number.
    if ignored.any() and ((labels > ignore) | (labels == ignore - 1)).any():
        raise AskForError(
            f"{path}: pixels of the label {ignore} are to be ignored, but there are ids beside it "
            f"and up to {labels.max()}, so that it may be a cell; draw what is to be ignored with "
            "a number far above all ids, and say which",
            "ignore",
            "NUMBER",
        )
    return ignored


def _plane(part: Part, files: ImageFiles) -> np.ndarray:
    image = part.open(files, index=True)
    labels = image.read(part.channel or 0)[0]
    if image.info.is_inverted and 2 * np.count_nonzero(labels) > labels.size:
        # Masks are saved so by ImageJ and by tifffile, with either meaning.
        raise ValueError(
            f"{part.path}: is saved with white as its lowest value, and its background would be an "
            "object; save it again with black as the lowest and 0 as background"
        )
    return labels


def _as_ids(path: Path, labels: np.ndarray) -> np.ndarray:
    """Labels as int32; ValueError if they cannot be ids of objects."""
    if labels.dtype.kind == "f" and not (np.isfinite(labels) & (labels == np.rint(labels))).all():
        raise ValueError(
            f"{path}: labels are {labels.dtype} with values that are no whole numbers; save ids as "
            "uint16"
        )
    low, high = labels.min(), labels.max()
    if low < 0 or high > _LARGEST:
        raise ValueError(
            f"{path}: labels go from {low} to {high}, expected 0 for background up to {_LARGEST}; "
            "number the cells from 1"
        )
    if labels.dtype.kind in "iu" and high in (np.iinfo(labels.dtype).max, _USUAL):
        others = labels[(labels > 0) & (labels < high)]
        if others.size and others.max() < high - 1:
            raise AskForError(
                f"{path}: {int((labels == high).sum())} pixels have the label {high}, the highest "
                f"of its kind, the other ids end at {others.max()}: these look "
                f"ignored, not like an object; set them to 0 or to an id of their own{_SAY_SO}",
                "ignore",
                str(high),
            )
    return labels.astype(np.int32)


def count_pieces(labels: np.ndarray) -> tuple[int, int]:
    """(Number of ids, how many of them are in several pieces) of labels [H, W]; corners join."""
    from skimage.measure import label  # costs a third of a second

    labels = np.maximum(labels, 0)  # what is ignored is no object
    components: Any = label(labels, background=0, connectivity=2)
    ids = np.zeros(int(components.max()) + 1, labels.dtype)
    ids[components.ravel()] = labels.ravel()
    _, counts = np.unique(ids[1:], return_counts=True)
    return len(counts), int((counts > 1).sum())


def label_fault(
    field: RawField, text: str, num_ids: int, num_in_pieces: int, study: str
) -> AskForError | None:
    """What is wrong with ids of cells that are in pieces; None if nothing is, or none is meant.

    A mask of nuclei is all that a study of nuclei needs.
    """
    channels = label_channels(text)
    if study != "cell" or text != channels[0] or 2 * num_in_pieces <= num_ids:
        return None
    found = (
        "a mask: one id in several pieces"
        if num_ids == 1
        else f"{num_ids} ids, {num_in_pieces} of them in several pieces"
    )
    return AskForError(
        f"{field.files[text][0].path}: the labels are {found}, expected an id of its own for each "
        "cell; number the cells, or make each piece one",
        "labels",
        f"{text}:components",
    )


def instances_from_mask(mask: np.ndarray) -> np.ndarray:
    """Connected components of a mask [H, W], foreground above 0: int32 [H, W], 0 = background.

    Pixels that only touch by a corner are not connected.
    """
    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask > 0, output=labels)
    return labels


def instances_from_interior(
    interior: np.ndarray, edge: np.ndarray, *, reach: float = 3.0, smallest: int = _SMALLEST
) -> np.ndarray:
    """Instances drawn as two masks, of cell interiors and of the edges between and around them.

    Each connected component of the interior with at least `smallest` pixels is a cell; the edge
    pixels within `reach` pixels of a cell (Euclidean) go to the nearest one. interior, edge:
    [H, W], foreground above 0. Returns int32 [H, W], 0 = background, ids 1…n.
    """
    components = instances_from_mask(interior)
    areas = np.bincount(components.ravel())
    areas[0] = 0
    ids = np.cumsum(areas >= smallest) * (areas >= smallest)
    cells = ids.astype(np.int32)[components]
    if not cells.any():
        return cells
    distance = np.empty(cells.shape)
    nearest = np.empty((2, *cells.shape), np.int32)
    ndimage.distance_transform_edt(
        cells == 0, return_indices=True, distances=distance, indices=nearest
    )
    grown = np.where((distance <= reach) & (edge > 0), cells[tuple(nearest)], 0)
    return np.where(cells > 0, cells, grown)
