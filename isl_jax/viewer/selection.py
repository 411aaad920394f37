"""What is selected in the viewer, as images: layers of napari without napari."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.viewer.layers import MICROMETRE, PIXEL, Place, Scale

_MICROMETRES = {"micrometer", "micron", "µm", "um"}


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image that is open in the viewer, `[H, W]` or with its planes `[C, H, W]`.

    `path` is the file that it was read from, if that is known.
    """

    name: str
    pixels: np.ndarray
    path: Path | None = None
    is_colour: bool = False


@dataclasses.dataclass(frozen=True)
class Selection:
    """The selected images, in the order of the layer list, and where the first of them lies.

    `spacing`: sides (y, x) of a pixel in µm, where the layer says that it is in micrometres.
    """

    images: tuple[Shown, ...]
    place: Place = dataclasses.field(default_factory=Place)
    spacing: Scale | None = None


def is_image(layer: Any) -> bool:
    """Whether a layer holds an image, not labels or shapes."""
    return type(layer).__name__ == "Image"


def selected(viewer: Any, channels: Sequence[str]) -> Selection:
    """The selected image layers, for a model that takes these channels.

    Of a layer with a slider it is the image that the slider is at, unless it alone is selected and
    holds as many planes as the model takes.
    """
    layers = [layer for layer in viewer.layers if layer in viewer.layers.selection]
    layers = [layer for layer in layers if is_image(layer)]
    if not layers:
        return Selection(())
    counts = {len(channels), len(set(channels))}
    whole = counts if len(layers) == 1 and 1 not in counts else set()
    images = tuple(_shown(layer, viewer.dims.current_step, whole) for layer in layers)
    (height, width), (top, left) = layers[0].scale[-2:], layers[0].translate[-2:]
    scale, is_um = (float(height), float(width)), str(layers[0].units[-1]) in _MICROMETRES
    place = Place(scale, (float(top), float(left)), MICROMETRE if is_um else PIXEL)
    return Selection(images, place, scale if is_um else None)


def _shown(layer: Any, step: Sequence[int], whole: set[int]) -> Shown:
    pixels, name = layer.data[0] if layer.multiscale else layer.data, layer.name
    if not layer.rgb and pixels.ndim > 2 and not (pixels.ndim == 3 and len(pixels) in whole):
        at = tuple(int(number) for number in step[-pixels.ndim : -2])
        pixels = pixels[at]
        # A stack of ours knows the names of its fields.
        fields = layer.metadata.get("fields")
        name = f"{fields[at[-1]]} {name}" if fields else f"{name} {' '.join(map(str, at))}"
    path = Path(layer.source.path) if layer.source.path else None
    return Shown(name, np.asarray(pixels), path if path and path.is_file() else None, layer.rgb)
