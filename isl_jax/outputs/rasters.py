"""Label images and maps as TIFF files that carry their pixel size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from isl_jax.files import written_whole
from isl_jax.inference.large import largest, release

# Distance of pixels in µm, (y, x).
Spacing = tuple[float, float]
_TILE = 512
# Classic TIFF ends at 4 GiB; what is written may be a little larger than the pixels.
_BIG_TIFF = 1 << 31


def write_labels(
    path: Path, labels: np.ndarray, *, spacing: Spacing | None = None, binning: int = 1
) -> None:
    """Write labels `[H, W]` as uint16, as uint32 from 65,536 on.

    `spacing` of the pixels in µm, (y, x); `binning`: pixels of the input file, squared, in one.
    """
    dtype = np.uint16 if largest(labels) < 1 << 16 else np.uint32
    _write(path, labels, np.dtype(dtype), spacing, binning)


def write_map(
    path: Path, values: np.ndarray, *, spacing: Spacing | None = None, binning: int = 1
) -> None:
    """Write a map `[H, W]` as float32, every digit kept; options as of `write_labels`."""
    _write(path, values, np.dtype(np.float32), spacing, binning)


def _write(
    path: Path, image: np.ndarray, dtype: np.dtype, spacing: Spacing | None, binning: int
) -> None:
    """OME-TIFF, for viewers that read OME; resolution tags, for those that do not."""
    options: dict[str, Any] = {"metadata": {"axes": "YX"}}
    if binning > 1:
        options["metadata"]["Description"] = (
            f"a pixel is {binning} × {binning} pixels of the input file"
        )
    if spacing:
        height, width = spacing
        options["metadata"] |= {
            "PhysicalSizeX": width,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": height,
            "PhysicalSizeYUnit": "µm",
        }
        options |= {
            "resolution": (1e4 / width, 1e4 / height),
            "resolutionunit": "CENTIMETER",
        }
    with written_whole(path) as draft:
        tifffile.imwrite(
            draft,
            _tiles(image, dtype),
            shape=image.shape,
            dtype=dtype,
            tile=(_TILE, _TILE),
            compression="zlib",
            predictor=dtype.kind == "f",
            ome=True,
            bigtiff=image.size * dtype.itemsize > _BIG_TIFF,
            **options,
        )


def _tiles(image: np.ndarray, dtype: np.dtype) -> Iterator[np.ndarray]:
    for top in range(0, image.shape[0], _TILE):
        for left in range(0, image.shape[1], _TILE):
            yield np.asarray(image[top : top + _TILE, left : left + _TILE], dtype)
        release(image)
