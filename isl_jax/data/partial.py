"""Partly annotated images: pixels of which nobody has said whether they are cell or background.

They are 0 in the labels of a prepared field, and 1 in a mask beside them: weight 0 in every loss,
and no part of calibration and scores.
"""

import re
from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Partial:
    """Fields of which only some cells are drawn: all that is far from these is unknown.

    Unlabelled pixels farther than `margin` (pixels of the source image) from every labelled one are
    ignored, in fields in whose name the expression `fields` is found. Raises ValueError for a
    margin below 1 and an expression that is none.
    """

    margin: float
    fields: str = ""

    def __post_init__(self) -> None:
        if not self.margin >= 1:
            raise ValueError(
                f"the margin of partly annotated fields is {self.margin} pixels; choose 1 or more, "
                "about the width of a cell"
            )
        try:
            re.compile(self.fields)
        except re.error as error:
            raise ValueError(f"{self.fields!r} is no regular expression: {error}") from None

    def applies_to(self, name: str) -> bool:
        """Whether a field is meant."""
        return re.search(self.fields, name) is not None


def split_ignored(
    labels: np.ndarray, partial: Partial | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels [H, W], below 0 where they are to be ignored, as ids and a mask of what is ignored.

    Returns (int32 [H, W] ≥ 0, bool [H, W] or None if all is annotated). Raises ValueError if
    nothing is.
    """
    ignored = labels < 0
    ids = np.maximum(labels, 0)
    if partial is not None:
        if not ids.any():
            raise ValueError(
                "holds no labelled cell, so that all of a partly annotated field is unknown; draw "
                "some cells, or leave the field out with --exclude"
            )
        distance = np.asarray(ndimage.distance_transform_edt(ids == 0))
        ignored |= distance > partial.margin
    if ignored.all():
        raise ValueError(
            "has no annotated pixel, all are to be ignored; leave the field out with --exclude"
        )
    return ids, ignored if ignored.any() else None
