"""Outlines of cells and nuclei: colonies of touching cells, as exact label images.

Each cell has an anisotropic distance ρ(x) from its centre, with a wavy radius and coordinates bent
by a smooth random displacement; a pixel belongs to the cell of smallest ρ, up to a limit. Where
cells are far apart they are rounded and ragged, where they meet they share a border.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage import measure

from isl_jax.data.targets import distance_map

# Shares of the sum of two radii: closest centres of ordinary cells, and of dividing daughters.
_SPACING, _DAUGHTER_SPACING = 0.8, 0.82
# Cells reach a little beyond their nominal radius, so that neighbours meet.
_REACH = 1.1


@dataclass(frozen=True)
class Scene:
    """Truth of a field: cells and nuclei, int32 [H, W], a nucleus having its cell's number.

    mitotic: bool [num_cells + 1], indexed by number. Numbers are consecutive from 1.
    """

    cells: np.ndarray
    nuclei: np.ndarray
    mitotic: np.ndarray

    @property
    def num_cells(self) -> int:
        """How many cells there are."""
        return len(self.mitotic) - 1


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """Gaussian random field of correlation length `sigma` pixels, mean 0, deviation 1, float32."""
    fy = np.fft.fftfreq(shape[0])[:, None].astype(np.float32)
    fx = np.fft.rfftfreq(shape[1])[None].astype(np.float32)
    window = np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2)).astype(np.float32)
    spectrum = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum * window, s=shape)
    return noise / max(float(noise.std()), 1e-12)


def window_around(centre, reach: float, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Square of half-side `reach` around a point (row, column), cut at the image border."""
    reach = int(reach) + 2
    top, left = (max(int(c) - reach, 0) for c in centre)
    bottom, right = (min(int(c) + reach + 1, n) for c, n in zip(centre, shape, strict=True))
    return slice(top, bottom), slice(left, right)


def draw_scene(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    diameter: float,
    coverage: float,
    nucleus_radius: float,
    mitotic_fraction: float,
) -> Scene:
    """Draw the cells of a field; lengths in pixels.

    diameter: typical cell diameter. coverage: share of the field that colonies may cover.
    nucleus_radius: as a share of the cell's radius. mitotic_fraction: share of dividing cells.
    """
    centres, radii, mitotic = _place(rng, shape, diameter / 2, coverage, mitotic_fraction)
    cells = _grow(rng, shape, centres, radii, mitotic)
    # Cells squeezed to less than a quarter of their area are none.
    area = np.bincount(cells.ravel(), minlength=len(radii) + 1)[1:]
    cells = _keep(cells, area > 0.25 * np.pi * radii**2)
    nuclei = _draw_nuclei(rng, cells, radii, mitotic, nucleus_radius)
    with_nucleus = np.bincount(nuclei.ravel(), minlength=len(radii) + 1)[1:] > 0
    numbers = np.concatenate([[0], np.cumsum(with_nucleus) * with_nucleus]).astype(np.int32)
    return Scene(numbers[cells], numbers[nuclei], np.append(False, mitotic[with_nucleus]))


def components(labels: np.ndarray) -> np.ndarray:
    """4-connected pieces of equal label, numbered from 1 in scan order; int [H, W], 0 kept."""
    return np.asarray(measure.label(labels, connectivity=1))


def largest_components(labels: np.ndarray) -> np.ndarray:
    """Of each label its largest 4-connected component; the rest becomes 0."""
    parts = components(labels)
    sizes = np.bincount(parts.ravel())
    owner = np.zeros(len(sizes), labels.dtype)
    owner[parts.ravel()] = labels.ravel()
    order = np.argsort(sizes, kind="stable")
    largest = np.zeros(int(labels.max()) + 1, np.int64)
    largest[owner[order]] = order  # the last write, the largest part, stays
    return np.where(largest[labels] == parts, labels, 0)


def _place(rng, shape, radius: float, coverage: float, mitotic_fraction: float):
    """Centres [N, 2], nominal radii [N] and mitosis [N], by dart throwing inside the colonies."""
    colonies = smooth_noise(rng, shape, 3 * radius)
    colonies = colonies >= np.quantile(colonies, 1 - coverage)
    num_darts = int(30 * shape[0] * shape[1] / (np.pi * radius**2))
    darts = rng.uniform(0, shape, (num_darts, 2))
    sizes = radius * np.exp(rng.normal(0, 0.16, num_darts))
    dividing = rng.random(num_darts) < mitotic_fraction
    angles = rng.uniform(0, 2 * np.pi, num_darts)
    centres, radii, mitotic = np.empty((num_darts, 2)), np.empty(num_darts), []
    for dart, size, divides, angle in zip(darts, sizes, dividing, angles, strict=True):
        n = len(mitotic)
        if not colonies[tuple(dart.astype(int))]:
            continue
        gaps = np.hypot(*(centres[:n] - dart).T) / (radii[:n] + size)
        if n and gaps.min() < _SPACING:
            continue
        if divides and angle < np.pi:  # two daughters, still in touch, in place of one cell
            size *= 0.62
            step = size * _DAUGHTER_SPACING * np.array([np.sin(angle), np.cos(angle)])
            pair = [dart - step, dart + step]
        else:
            size *= 0.78 if divides else 1.0  # dividing cells round up
            pair = [dart]
        for centre in pair:
            if len(mitotic) < num_darts:
                centres[len(mitotic)], radii[len(mitotic)] = centre, size
                mitotic.append(divides)
    n = len(mitotic)
    return centres[:n], radii[:n], np.array(mitotic, bool)


def _grow(rng, shape, centres, radii, mitotic) -> np.ndarray:
    """Label image int32 [H, W] of the cells 1..N."""
    typical = float(np.median(radii)) if len(radii) else 1.0
    bend = [
        0.16 * typical * smooth_noise(rng, shape, 0.5 * typical)
        + 0.035 * typical * smooth_noise(rng, shape, 0.08 * typical)
        for _ in range(2)
    ]
    nearest = np.full(shape, np.inf, np.float32)
    cells = np.zeros(shape, np.int32)
    for number, (centre, radius, round_) in enumerate(
        zip(centres, radii, mitotic, strict=True), start=1
    ):
        aspect = 1.0 if round_ else min(np.exp(rng.exponential(0.25)), 2.0)
        waves = rng.normal(0, 0.0 if round_ else 0.07, (4, 2))
        turn = rng.uniform(0, np.pi)
        window = window_around(centre, 1.9 * radius, shape)
        y, x = np.ogrid[window]
        bending = 0.3 if round_ else 1.0
        dy = y - centre[0] + bending * bend[0][window]
        dx = x - centre[1] + bending * bend[1][window]
        rho = _wavy_distance(dy, dx, radius, aspect, turn, waves)
        closer = (rho < nearest[window]) & (rho < (1.0 if round_ else _REACH))
        nearest[window][closer] = rho[closer]
        cells[window][closer] = number
    return largest_components(cells)


def _wavy_distance(dy, dx, radius: float, aspect: float, turn: float, waves) -> np.ndarray:
    """Distance from a centre in units of an elliptic radius with `waves` [K, 2] along the angle."""
    u = (dx * np.cos(turn) + dy * np.sin(turn)) / np.sqrt(aspect)
    v = (dy * np.cos(turn) - dx * np.sin(turn)) * np.sqrt(aspect)
    unit = (u + 1j * v).astype(np.complex64)
    rho = np.abs(unit)
    unit = unit / np.maximum(rho, 1e-6)
    outline, power = np.ones_like(rho), unit
    for cosine, sine in waves:
        power = power * unit  # waves 2, 3, … a turn, without an arctangent
        outline += np.float32(cosine) * power.real + np.float32(sine) * power.imag
    return rho / (radius * np.maximum(outline, 0.5))


def _draw_nuclei(rng, cells, radii, mitotic, share: float) -> np.ndarray:
    """One nucleus inside each cell, at least two pixels from its border, with the cell's number."""
    nuclei = np.zeros_like(cells)
    depth = distance_map(cells, "pixels", "all")
    for number, box in enumerate(ndimage.find_objects(cells), start=1):
        if box is None:
            continue
        inside = np.where(cells[box] == number, depth[box], 0)
        deepest = min(float(inside.max()), 1.1 * radii[number - 1])
        # Anywhere deep enough, so nuclei are not always in the middle.
        spots = np.argwhere(inside >= 0.8 * deepest)
        centre = spots[rng.integers(len(spots))]
        y, x = np.ogrid[: inside.shape[0], : inside.shape[1]]
        dy, dx = y - centre[0], x - centre[1]
        turn = rng.uniform(0, np.pi)
        if mitotic[number - 1]:  # condensed chromosomes: a plate
            radius, aspect, waves = 0.42 * deepest, rng.uniform(2.0, 3.0), np.zeros((1, 2))
        else:
            radius = share * np.sqrt(deepest * radii[number - 1]) * np.exp(rng.normal(0, 0.1))
            aspect, waves = np.exp(rng.uniform(0, 0.45)), rng.normal(0, 0.035, (2, 2))
        rho = _wavy_distance(dy, dx, max(radius, 2.0), aspect, turn, waves)
        nuclei[box][(rho < 1) & (inside > 2)] = number
    return largest_components(nuclei)


def _keep(labels: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Labels whose entry in `kept` [N] is true; the others become 0."""
    return np.where(np.append(False, kept)[labels], labels, 0)
