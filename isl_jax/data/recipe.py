"""What is made of which fields: what preparation is told, and what it asks of a field."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from isl_jax.data.normalisation import PAPER, Normalisation
from isl_jax.data.partial import Partial
from isl_jax.data.stain import StainRule


class SourceField(Protocol):
    """A field as it comes from elsewhere, found sound; it must bear being pickled."""

    @property
    def name(self) -> str:
        """Its own among the fields; a folder is called after it."""
        ...

    @property
    def group(self) -> str:
        """The unit that splits never cut."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        ...

    @property
    def stain_dtype(self) -> np.dtype | None:
        """None without a stain."""
        ...

    @property
    def pixel_size(self) -> float | None:
        """In µm; None if it is not known."""
        ...

    @property
    def sources(self) -> Mapping[str, Any]:
        """Its files, for the record."""
        ...

    @property
    def stamp(self) -> str:
        """Another one when a file has changed, or what is read from it."""
        ...

    def load(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Inputs [H, W, C], stain [H, W] or None (raw dtypes), labels int32 [H, W] or None.

        Labels are 0 in the background, and below 0 where nobody has annotated.
        """
        ...


@dataclass(frozen=True)
class Recipe:
    """What is made of the fields, and what dataset.json tells of their origin.

    `binning` averages blocks of so many pixels squared and takes the most frequent label of each.
    `stain_scale`: each `field` by its own signal, or all of them by a `percentile` of the training
    fields or the `dtype`'s maximum. `normalisation` is what crops of the inputs will go through.
    Both are the paper's unless said. `partial`: which fields have some of their cells drawn only.
    `source`, `split` and `layout` are recorded as they are.
    """

    study: str
    stain: str | None
    binning: int = 1
    stain_scale: StainRule = "percentile"
    normalisation: Normalisation = PAPER
    partial: Partial | None = None
    source: str = ""
    split: Mapping[str, Any] | None = None
    layout: Mapping[str, Any] | None = None
