"""What the cells of a scene do to light: optical path, absorption, and what the stains emit."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.segmentation import find_boundaries

from isl_jax.data.targets import distance_map
from isl_jax.simulate.cells import Scene, smooth_noise, window_around
from isl_jax.simulate.parameters import Specimen


def gaussian_filter(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of deviation `sigma` pixels, mirrored at the borders."""
    return np.asarray(ndimage.gaussian_filter(image, sigma))


@dataclass(frozen=True)
class Profile:
    """Physical images of a field, float32 [H, W].

    optical_path_um: excess over the medium. absorption: exponent of the amplitude. dapi and
    membrane: slices (height in µm, emission ≥ 0, 1 for a typical stained structure).
    """

    optical_path_um: np.ndarray
    absorption: np.ndarray
    dapi: tuple[tuple[float, np.ndarray], ...]
    membrane: tuple[tuple[float, np.ndarray], ...]


@dataclass(frozen=True)
class _Bodies:
    """Heights in µm and shares (0..1) from which optical path and stains are made."""

    height_um: np.ndarray
    nucleus_um: np.ndarray
    nucleoli_um: np.ndarray
    organelles: np.ndarray
    droplets_um: np.ndarray
    debris: np.ndarray


def draw_profile(
    rng: np.random.Generator, scene: Scene, specimen: Specimen, pixel_size_um: float
) -> Profile:
    """Give every cell of the scene its thickness, texture and stain."""
    bodies = _draw_bodies(rng, scene, specimen, pixel_size_um)
    over_medium = specimen.cytoplasm_index - specimen.medium_index
    path = over_medium * bodies.height_um
    path += (specimen.nucleus_index - specimen.cytoplasm_index) * bodies.nucleus_um
    path += (specimen.nucleolus_index - specimen.nucleus_index) * bodies.nucleoli_um
    path += (specimen.droplet_index - specimen.cytoplasm_index) * bodies.droplets_um
    path += specimen.organelle_opd_um * bodies.organelles + 0.1 * bodies.debris
    absorption = 0.015 * np.abs(bodies.organelles) + 0.02 * bodies.droplets_um
    absorption += 0.2 * bodies.debris
    return Profile(
        optical_path_um=path.astype(np.float32),
        absorption=absorption.astype(np.float32),
        dapi=_dapi(rng, scene, bodies, pixel_size_um),
        membrane=_membrane(rng, scene, specimen, bodies, pixel_size_um),
    )


def _draw_bodies(rng, scene: Scene, specimen: Specimen, pixel_size_um: float) -> _Bodies:
    um = 1 / pixel_size_um  # pixels
    cells, nuclei, shape = scene.cells, scene.nuclei, scene.cells.shape
    n = scene.num_cells + 1
    inside, in_nucleus = cells > 0, nuclei > 0
    depth, nuclear_depth = (
        distance_map(cells, "pixels", "all"),
        distance_map(nuclei, "pixels", "all"),
    )
    dome = _dome(cells, depth)
    # A flat skirt (lamella) carries the dome; rounded, dividing cells are all dome and taller.
    # Cells pressed together keep their height: the groove between them is shallow.
    in_colony = distance_map(inside.astype(np.int32), "pixels", "all")
    skirt = 1 - 0.4 * np.exp(-depth * pixel_size_um / 0.5)
    skirt = skirt - 0.6 * np.exp(-in_colony * pixel_size_um / 0.5)
    tall = specimen.cell_height_um * np.exp(rng.normal(0, 0.18, n))
    tall = np.where(scene.mitotic, 1.7 * specimen.cell_height_um, tall).astype(np.float32)
    flat = np.where(scene.mitotic, 0.0, rng.uniform(0.2, 0.45, n)).astype(np.float32)
    height = tall[cells] * (flat[cells] * skirt + (1 - flat[cells]) * dome)
    nucleus = 0.75 * tall[nuclei] * np.sqrt(_dome(nuclei, nuclear_depth)) * in_nucleus
    height = np.maximum(height, (nucleus + 0.5) * in_nucleus)
    ruffles = 1 + 0.08 * smooth_noise(rng, shape, 1.5 * um)
    height = gaussian_filter(height * ruffles, 0.35 * um) * inside
    spots = _spots(rng, in_nucleus & ~scene.mitotic[nuclei] & (nuclear_depth > 1.0 * um), 0.045, um)
    nucleoli = 2.2 * np.clip(gaussian_filter(spots, 0.75 * um) * 2 * np.pi * (0.75 * um) ** 2, 0, 1)
    # Organelles: granular, densest around the nucleus, absent inside it.
    around = np.clip(dome * 1.4, 0, 1) * gaussian_filter((inside & ~in_nucleus) * 1.0, 0.3 * um)
    grain = _band(rng, shape, 0.35 * um, 0.9 * um)
    chromatin = 0.35 * _band(rng, shape, 0.45 * um, 1.2 * um) * in_nucleus
    sites = _spots(rng, inside & ~in_nucleus & (depth > 0.8 * um), 0.035, um)
    droplets = 0.7 * np.clip(gaussian_filter(sites, 0.3 * um) * 2 * np.pi * (0.3 * um) ** 2, 0, 1.5)
    return _Bodies(
        height_um=height,
        nucleus_um=gaussian_filter(nucleus, 0.15 * um),
        nucleoli_um=nucleoli * in_nucleus,
        organelles=grain * around + chromatin,
        droplets_um=droplets,
        debris=_debris(rng, ~inside, specimen.debris_per_mm2, um),
    )


def _dome(labels: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """0 at each label's border to 1 where it is deepest, round on top."""
    deepest = np.ones(int(labels.max()) + 1, np.float32)
    np.maximum.at(deepest, labels.ravel(), depth.ravel())
    share = np.where(labels > 0, depth / deepest[labels], 0)
    return 1 - (1 - share) ** 2


def _band(rng, shape, fine: float, coarse: float) -> np.ndarray:
    """Texture between two length scales (pixels), deviation 1."""
    noise = smooth_noise(rng, shape, fine)
    noise = noise - gaussian_filter(noise, coarse)
    return noise / max(float(noise.std()), 1e-12)


def _spots(rng, where: np.ndarray, per_um2: float, um: float) -> np.ndarray:
    """Random weighted points inside `where`, `per_um2` of them on average; float32 [H, W]."""
    chosen = where & (rng.random(where.shape, dtype=np.float32) < per_um2 / um**2)
    return chosen * rng.uniform(0.5, 1.3, where.shape).astype(np.float32)


def _debris(rng, free: np.ndarray, per_mm2: float, um: float) -> np.ndarray:
    """Fragments between the cells: clumps of bodies up to 2 µm in radius, strength 0 to 1."""
    out = np.zeros(free.shape, np.float32)
    count = rng.poisson(per_mm2 * free.size / (1000 * um) ** 2)
    for site in rng.uniform(0, free.shape, (count, 2)):
        size, strength = rng.uniform(0.4, 1.8) * um, rng.uniform(0.2, 1.0)
        for _ in range(rng.integers(1, 5)):
            row, column = site + rng.normal(0, 0.7 * size, 2)
            radius = size * rng.uniform(0.4, 1.0)
            window = window_around((row, column), radius, free.shape)
            y, x = np.ogrid[window]
            ball = np.clip(1 - ((y - row) ** 2 + (x - column) ** 2) / radius**2, 0, 1)
            out[window] = np.maximum(out[window], strength * np.sqrt(ball))
    return gaussian_filter(out, 0.15 * um) * free


def _dapi(rng, scene: Scene, bodies: _Bodies, pixel_size_um: float):
    """DNA in the nuclei: patchy, dark nucleoli, brighter when condensed; a faint rest elsewhere."""
    um, shape, nuclei = 1 / pixel_size_um, scene.nuclei.shape, scene.nuclei
    bright = np.exp(rng.normal(0, 0.28, scene.num_cells + 1)) * np.where(scene.mitotic, 1.8, 1)
    patches = 1 + 0.22 * _band(rng, shape, 0.4 * um, 2.0 * um)
    relative = np.sqrt(bodies.nucleus_um / max(float(bodies.nucleus_um.max()), 1e-6))
    emission = bright[nuclei] * (nuclei > 0) * relative * np.clip(patches, 0.2, None)
    emission *= 1 - 0.25 * bodies.nucleoli_um
    emission = emission + 0.03 * (scene.cells > 0) * np.clip(1 + bodies.organelles, 0, None)
    emission = emission + 0.3 * bodies.debris * (bodies.debris > 0.7)
    return ((0.5, (0.6 * emission).astype(np.float32)), (-0.7, (0.4 * emission).astype(np.float32)))


def _membrane(rng, scene: Scene, specimen: Specimen, bodies: _Bodies, pixel_size_um: float):
    """Plasma membrane (slope, walls between cells) and internal membranes around the nucleus."""
    um, cells = 1 / pixel_size_um, scene.cells
    inside = cells > 0
    bright = np.exp(rng.normal(0, 0.22, scene.num_cells + 1))[cells] * inside
    slope = np.hypot(*np.gradient(bodies.height_um, pixel_size_um))
    surface = np.sqrt(1 + np.minimum(slope, 3) ** 2) * inside
    # A wall between two cells is seen edge-on: twice the membrane, as high as the cells there.
    wall = find_boundaries(cells, mode="thick", connectivity=2)
    touching = wall & (gaussian_filter((~inside) * 1.0, 0.5 * um) < 0.12)
    patchy = np.clip(1 + 0.4 * smooth_noise(rng, cells.shape, 2.0 * um), 0.2, None)
    walls = patchy * gaussian_filter(0.45 * wall + 0.9 * touching, 0.2 * um)
    bulk = bodies.height_um / specimen.cell_height_um
    bulk = bulk * np.clip(1 + 0.25 * bodies.organelles, 0, None)
    bulk *= 1 - 0.5 * (scene.nuclei > 0)
    low = bright * 0.25 * surface + walls
    high = bright * (0.15 * surface + 0.75 * bulk) + 0.3 * bodies.debris
    return ((0.0, low.astype(np.float32)), (0.5 * specimen.cell_height_um, high.astype(np.float32)))
