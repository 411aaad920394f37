"""Fields of a simulated study: cells drawn, seen through the microscope, exposed on the camera."""

from dataclasses import dataclass

import numpy as np
from scipy.fft import next_fast_len
from scipy.ndimage import gaussian_filter

from isl_jax.simulate.cells import Scene, components, draw_scene
from isl_jax.simulate.optics import (
    Microscope,
    dic,
    fluorescence,
    partially_coherent,
    phase_contrast,
    source_points,
)
from isl_jax.simulate.parameters import Camera, Simulation
from isl_jax.simulate.specimen import Profile, draw_profile

# Simulated around a field and cut away: waves there have wrapped round the edges of the grid.
_MARGIN_UM = 12.0


@dataclass(frozen=True)
class FieldImages:
    """One field: stacks uint16 [P, H, W] by channel, label images int32 [H, W] with ids 1..n."""

    channels: dict[str, np.ndarray]
    nuclei: np.ndarray
    cells: np.ndarray


def simulate_field(parameters: Simulation, index: int) -> FieldImages:
    """Draw field number `index` and form its images; the same numbers give the same arrays.

    Channels of study nucleus: phase_contrast (1 plane), bright_field, dapi. Of study cell: dic,
    membrane, dapi.
    """
    rng = np.random.default_rng((parameters.seed, index))
    specimen, microscope, camera = parameters.specimen, parameters.optics, parameters.camera
    margin = round(_MARGIN_UM / microscope.pixel_size_um)
    diameter = specimen.cell_diameter_um / microscope.pixel_size_um
    side = int(next_fast_len(parameters.size + 2 * margin) or 0)
    scene = draw_scene(
        rng,
        (side, side),
        diameter=diameter * np.exp(rng.normal(0, 0.06)),
        coverage=rng.uniform(*specimen.confluence),
        nucleus_radius=specimen.nucleus_radius,
        mitotic_fraction=specimen.mitotic_fraction,
    )
    profile = draw_profile(rng, scene, specimen, microscope.pixel_size_um)
    focus_um = rng.normal(0, camera.defocus_um)
    inner = np.s_[..., margin : margin + parameters.size, margin : margin + parameters.size]
    light = 1 + camera.illumination_unevenness * _unevenness(rng, parameters.size)
    images = {}
    for name, stack in _label_free(parameters, profile, focus_um).items():
        seen = stack[inner] * light * _dust(rng, parameters)
        exposure = camera.label_free_electrons * np.exp(rng.normal(0, 0.1)) / seen.mean()
        images[name] = _expose(rng, seen * exposure, camera)
    for name, stack in _stains(parameters, profile, focus_um).items():
        electrons = camera.stain_electrons * np.exp(rng.normal(0, 0.15)) * stack[inner]
        seen = (electrons + camera.stain_background_electrons) * light
        images[name] = _expose(rng, seen, camera)
    return FieldImages(images, *_cropped_labels(scene, inner, diameter))


def _label_free(parameters: Simulation, profile: Profile, focus_um: float) -> dict:
    o = parameters.optics
    phase = 2 * np.pi / o.wavelength_um * profile.optical_path_um
    transmission = np.exp(1j * phase - profile.absorption).astype(np.complex64)
    microscope = _microscope(parameters, o.wavelength_um)
    disc = source_points(o.condenser_na, o.num_source_points, o.wavelength_um)
    planes = [plane + focus_um for plane in o.focal_planes_um]
    if parameters.study == "cell":
        prism = {
            "shear_um": o.dic_shear_um,
            "bias_deg": o.dic_bias_deg,
            "azimuth_deg": o.dic_azimuth_deg,
        }
        return {"dic": dic(transmission, planes, microscope, sources=disc, **prism)}
    return {
        "phase_contrast": phase_contrast(
            transmission,
            [focus_um],
            microscope,
            ring_na=o.phase_ring_na,
            ring_width_na=o.phase_ring_width_na,
            ring_transmission=o.phase_ring_transmission,
            num_points=o.num_source_points + 3,
        ),
        "bright_field": partially_coherent(transmission, planes, microscope, sources=disc),
    }


def _microscope(parameters: Simulation, wavelength_um: float) -> Microscope:
    o = parameters.optics
    return Microscope(
        o.pixel_size_um, o.objective_na, wavelength_um, parameters.specimen.medium_index
    )


def _stains(parameters: Simulation, profile: Profile, focus_um: float) -> dict:
    o = parameters.optics
    planes = [plane + focus_um for plane in o.stain_planes_um]
    stains = {"dapi": (profile.dapi, o.dapi_wavelength_um)}
    if parameters.study == "cell":
        stains["membrane"] = (profile.membrane, o.membrane_wavelength_um)
    return {
        name: fluorescence(slices, planes, _microscope(parameters, wavelength))
        for name, (slices, wavelength) in stains.items()
    }


def _cropped_labels(scene: Scene, inner, diameter: float) -> tuple[np.ndarray, np.ndarray]:
    """Nuclei and cells of the visible part, each piece an object of its own, ids consecutive."""
    smallest = 0.01 * diameter**2
    labels = []
    for image in (scene.nuclei[inner], scene.cells[inner]):
        # The frame may cut an object in two, or leave a sliver that nobody would annotate.
        pieces = components(image)
        sizes = np.bincount(pieces.ravel())
        kept = (sizes >= smallest) & (np.arange(len(sizes)) > 0)
        labels.append((np.cumsum(kept) * kept).astype(np.int32)[pieces])
    return labels[0], labels[1]


def _unevenness(rng, size: int) -> np.ndarray:
    """Smooth illumination, −0.5 to 0.5 over the field: a tilt and an off-centre bowl."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32)] * 2, indexing="ij")
    a, b, cy, cx = rng.uniform(-1, 1, 4)
    surface = a * y + b * x - 0.8 * ((y - 0.5 * cy) ** 2 + (x - 0.5 * cx) ** 2)
    return (surface - surface.mean()) / max(float(np.ptp(surface)), 1e-6)


def _dust(rng, parameters: Simulation) -> np.ndarray:
    """Transmission of dust far from focus: soft dark discs."""
    size, um = parameters.size, 1 / parameters.optics.pixel_size_um
    shade = np.zeros((size, size), np.float32)
    y, x = np.ogrid[:size, :size]
    for _ in range(rng.poisson(parameters.camera.dust_per_mm2 * (size / um / 1000) ** 2)):
        row, column = rng.uniform(0, size, 2)
        radius, strength = rng.uniform(1.5, 5) * um, rng.uniform(0.02, 0.08)
        shade += strength * ((y - row) ** 2 + (x - column) ** 2 < radius**2)
    return 1 - gaussian_filter(shade, 0.8 * um)


def _expose(rng, electrons: np.ndarray, camera: Camera) -> np.ndarray:
    """Shot and read noise, gain, offset, 16 bits: electrons [P, H, W] → uint16."""
    seen = rng.poisson(np.maximum(electrons, 0)).astype(np.float32)
    seen += camera.read_noise_electrons * rng.standard_normal(seen.shape, dtype=np.float32)
    counts = camera.offset_counts + camera.gain_counts_per_electron * seen
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
