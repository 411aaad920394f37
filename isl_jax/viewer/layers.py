"""Fields as layers of napari: stacks of images that are read when they are looked at."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

# What napari makes a layer of: pixels, how they are shown, and as what.
LayerData = tuple[Any, dict[str, Any], str]
Shape = tuple[int, int]
Scale = tuple[float, float]
PIXEL, MICROMETRE = "pixel", "micrometer"
# Pixels a side that contrast is judged by; more of them change nothing.
_SAMPLE = 512


@dataclasses.dataclass(frozen=True)
class Channel:
    """One layer of all fields: `read(i)` is the image `[H, W]` of field i, None if it has none.

    `limits` of the contrast; None: percentiles 0.5 and 99.5 of the first field that has one.
    """

    name: str
    read: Callable[[int], np.ndarray | None]
    kind: Literal["image", "labels"] = "image"
    colormap: str = "gray"
    limits: tuple[float, float] | None = None
    visible: bool = True
    opacity: float = 1.0


@dataclasses.dataclass(frozen=True)
class FieldOfView:
    """What a stack tells of a field: its name, what is known of it beside, and its shape."""

    name: str
    shape: Shape
    note: str = ""

    @property
    def title(self) -> str:
        """The name, and the note behind it."""
        return f"{self.name} ({self.note})" if self.note else self.name


def contrast(plane: np.ndarray) -> tuple[float, float]:
    """Percentiles 0.5 and 99.5 of an image `[H, W]`, not equal: what it is shown between."""
    steps = [max(1, math.ceil(side / _SAMPLE)) for side in plane.shape]
    low, high = np.percentile(plane[:: steps[0], :: steps[1]], [0.5, 99.5])
    return float(low), float(high if high > low else low + 1)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an image lies: sides (y, x) of its pixels, the centre of the first one, their unit."""

    scale: Scale = (1.0, 1.0)
    translate: tuple[float, float] = (0.0, 0.0)
    unit: str = PIXEL

    @classmethod
    def of(cls, spacing: Sequence[float] | None, binning: int = 1) -> "Place":
        """That of pixels `spacing` (y, x) apart, in µm or not known, of which each is a block.

        It lies on the image that it was made of, blocks of `binning` pixels squared.
        """
        if spacing is None:
            return cls().binned(binning)
        height, width = (float(side) / binning for side in spacing)
        return cls((height, width), unit=MICROMETRE).binned(binning)

    def binned(self, factor: int) -> "Place":
        """That of blocks of its pixels: their centres lie further in."""
        (top, left), (height, width) = self.translate, self.scale
        half = (factor - 1) / 2
        return Place(
            (height * factor, width * factor), (top + height * half, left + width * half), self.unit
        )

    def at(self, top: int, left: int) -> "Place":
        """That of a window of the image, which begins at this pixel."""
        (y, x), (height, width) = self.translate, self.scale
        return dataclasses.replace(self, translate=(y + top * height, x + left * width))

    def shown(self, *, stack: bool = False) -> dict[str, Any]:
        """What napari calls it; a `stack` has an axis before."""
        return {
            "scale": [1.0, *self.scale] if stack else list(self.scale),
            "translate": [0.0, *self.translate] if stack else list(self.translate),
            "units": [PIXEL, self.unit, self.unit] if stack else [self.unit, self.unit],
        }


def stacked(
    fields: Sequence[FieldOfView], channels: Sequence[Channel], place: Place
) -> list[LayerData]:
    """Layers of the channels, of several fields `[F, H, W]` with a slider, of one `[H, W]`.

    Fields that are smaller than the largest are shown at the top left, each in its frame with its
    name. Channels that no field has are left out.
    """
    several = len(fields) > 1
    shape = tuple(max(field.shape[axis] for field in fields) for axis in (0, 1))
    layers: list[LayerData] = []
    for channel in channels:
        found = (channel.read(index) for index in range(len(fields)))
        pixels = next((image for image in found if image is not None), None)
        if pixels is None:
            continue
        data = _lazy(channel, pixels.dtype, len(fields), shape) if several else pixels
        layers.append((data, _shown(channel, pixels, fields, place, several), channel.kind))
    return [*layers, _frames(fields, place)] if several and layers else layers


def _shown(
    channel: Channel,
    pixels: np.ndarray,
    fields: Sequence[FieldOfView],
    place: Place,
    several: bool,
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": channel.name if several else f"{fields[0].name} {channel.name}",
        **place.shown(stack=several),
        "visible": channel.visible,
        "opacity": channel.opacity,
        "metadata": {"fields": [field.name for field in fields]},
    }
    if channel.kind == "image":
        limits = channel.limits or contrast(pixels)
        shown |= {"colormap": channel.colormap, "contrast_limits": limits}
        if channel.colormap != "gray":
            shown["blending"] = "additive"
    return shown


def _lazy(channel: Channel, dtype: np.dtype, count: int, shape: tuple[int, ...]) -> Any:
    """`[F, H, W]` that reads a field when it is shown."""
    import dask.array  # comes with napari

    dtype = np.dtype(np.int32) if channel.kind == "labels" else dtype

    def whole(block_id: tuple[int, ...]) -> np.ndarray:
        filled = np.zeros((1, *shape), dtype)
        pixels = channel.read(block_id[0])
        if pixels is not None:
            filled[0, : pixels.shape[0], : pixels.shape[1]] = pixels
        return filled

    chunks = ((1,) * count, *((side,) for side in shape))
    return dask.array.map_blocks(whole, chunks=chunks, dtype=dtype, meta=np.empty((0, 0, 0), dtype))


def _frames(fields: Sequence[FieldOfView], place: Place) -> LayerData:
    """A frame around each field, with its name."""
    corners = [
        [[i, 0, 0], [i, 0, w], [i, h, w], [i, h, 0]]
        for i, (h, w) in enumerate(field.shape for field in fields)
    ]
    return (
        np.array(corners, float) - [0, 0.5, 0.5],
        {
            "name": "fields",
            "shape_type": "polygon",
            "face_color": "transparent",
            "edge_color": "gray",
            "edge_width": max(max(field.shape) for field in fields) / 500,
            **place.shown(stack=True),
            "features": {"field": [field.title for field in fields]},
            "text": {
                "string": "{field}",
                "anchor": "upper_left",
                "color": "white",
                "size": 12,
            },
        },
        "shapes",
    )
