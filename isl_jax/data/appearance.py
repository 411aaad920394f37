"""How a field looks, in numbers: statistics of its places, and whether it was acquired well."""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

# Side of the places of a field whose statistics are compared, pixels; at least 2 × 2 of them.
PLACE = 128
# Widths of the details whose contrast is measured: differences of two Gaussians, pixels.
_SIGMAS = (1.0, 2.0, 4.0, 8.0, 16.0)
# Fine and coarse details whose contrasts tell the focus. In 46 fields of seven public sets
# their ratio was at least 0.64 of the median of the set; a blur of 1.5 pixels halves it and more.
_FINE, _COARSE = (0.7, 1.4), (2.8, 5.6)
# A field is out of focus below this share of the median of all fields.
UNSHARP = 0.5
# It is saturated where more than this share of a plane's pixels have its highest value.
SATURATED = 0.01


@dataclass(frozen=True)
class Acquisition:
    """How well the inputs of a field were acquired.

    `sharpness`: contrast of fine details beside that of coarse ones; `saturated`: the largest share
    of pixels, 0..1, that have the highest value of their plane.
    """

    sharpness: float
    saturated: float


def acquisition(inputs: np.ndarray) -> Acquisition:
    """Of a field's inputs [H, W, C], in raw units of any dtype."""
    planes = distinct_planes(inputs)
    sharpness = np.mean([_contrast(p, *_FINE) / _contrast(p, *_COARSE) for p in planes])
    # A constant plane is no saturated one.
    full = [np.mean(p == p.max()) for p in planes if p.min() < p.max()]
    return Acquisition(float(sharpness), float(max(full, default=0.0)))


def places(planes: np.ndarray) -> np.ndarray:
    """Statistics [n, F] of the places of normalised inputs [H, W, C], without any model.

    Of each channel: mean, logarithm of the standard deviation, skewness, and the logarithm of the
    contrast of details of four widths. Channels that repeat another one count once.
    """
    columns = []
    for plane in distinct_planes(planes):
        blocks = _blocks(np.asarray(plane, np.float32))
        mean, std = blocks.mean(axis=1), blocks.std(axis=1)
        cubes = np.mean((blocks - mean[:, None]) ** 3, axis=1)
        skewness = cubes / np.maximum(std, 1e-6) ** 3
        columns += [mean, np.log(std + 1e-3), skewness]
        smooth = [ndimage.gaussian_filter(np.asarray(plane, np.float32), s) for s in _SIGMAS]
        columns += [
            np.log(_blocks(fine - coarse).std(axis=1) + 1e-3)
            for fine, coarse in itertools.pairwise(smooth)
        ]
    return np.stack(columns, axis=1).astype(np.float64)


def distinct_planes(inputs: np.ndarray) -> list[np.ndarray]:
    """The channels of [H, W, C], those that repeat an earlier one left out."""
    planes: list[np.ndarray] = []
    for channel in range(inputs.shape[-1]):
        plane = np.asarray(inputs[..., channel])
        if not any(np.array_equal(plane, other) for other in planes):
            planes.append(plane)
    return planes


def _contrast(plane: np.ndarray, fine: float, coarse: float) -> float:
    plane = np.asarray(plane, np.float32)
    difference = ndimage.gaussian_filter(plane, fine) - ndimage.gaussian_filter(plane, coarse)
    return max(float(difference.std()), 1e-12)


def _blocks(plane: np.ndarray) -> np.ndarray:
    """Pixels of the places [n, pixels]; a rest at the bottom and right is left out."""
    side = max(1, min(PLACE, min(plane.shape) // 2))
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    cut = plane[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return cut.swapaxes(1, 2).reshape(rows * columns, side * side)
