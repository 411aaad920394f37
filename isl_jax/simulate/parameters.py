"""What a simulated study is made of: specimen, microscope and camera, in physical units."""

import dataclasses
import math
from dataclasses import dataclass, field

from isl_jax.task import STUDIES


@dataclass(frozen=True)
class Specimen:
    """The cells: how many, how large, how thick, and how strongly they refract.

    The refractive indices are typical of quantitative phase imaging of cultured cells: cytoplasm
    above the medium, nucleus slightly below the cytoplasm, nucleoli and lipid droplets above.
    """

    cell_diameter_um: float = 21.0
    confluence: tuple[float, float] = (0.6, 0.95)  # share of a field that colonies may cover
    cell_height_um: float = 4.5
    nucleus_radius: float = 0.58  # of the cell's largest inscribed radius and its nominal one
    mitotic_fraction: float = 0.06
    debris_per_mm2: float = 900.0
    medium_index: float = 1.337
    cytoplasm_index: float = 1.363
    nucleus_index: float = 1.357
    nucleolus_index: float = 1.385
    droplet_index: float = 1.43
    organelle_opd_um: float = 0.009  # standard deviation of the optical path by organelles


@dataclass(frozen=True)
class Optics:
    """The microscope: transmitted light for label-free images, wide-field fluorescence for stains.

    `focal_planes_um` are the label-free stage positions (the bright-field stack of study nucleus,
    the DIC stack of study cell), `stain_planes_um` those of the stains; 0 is the specimen's plane.
    """

    pixel_size_um: float = 0.325
    objective_na: float = 0.6
    condenser_na: float = 0.24
    wavelength_um: float = 0.55
    focal_planes_um: tuple[float, ...] = (-7.0, -2.5, 2.5, 7.0)
    num_source_points: int = 9
    phase_ring_na: float = 0.24
    phase_ring_width_na: float = 0.06
    phase_ring_transmission: float = 0.4  # of the intensity
    dic_shear_um: float = 0.25
    dic_bias_deg: float = 60.0
    dic_azimuth_deg: float = 45.0
    dapi_wavelength_um: float = 0.46
    membrane_wavelength_um: float = 0.67
    stain_planes_um: tuple[float, ...] = (-3.0, -1.0, 1.0, 3.0)


@dataclass(frozen=True)
class Camera:
    """Photons to 16-bit counts, and what varies from field to field."""

    label_free_electrons: float = 4000.0  # a pixel, on average
    stain_electrons: float = 350.0  # of a typical stained structure, a pixel
    stain_background_electrons: float = 12.0
    read_noise_electrons: float = 2.0
    gain_counts_per_electron: float = 4.0
    offset_counts: float = 100.0
    illumination_unevenness: float = 0.12  # relative, from one side of the field to the other
    dust_per_mm2: float = 500.0
    defocus_um: float = 0.6  # standard deviation between fields


@dataclass(frozen=True)
class Simulation:
    """One simulated study; a field is determined by these values and its number."""

    study: str = "nucleus"
    size: int = 512
    seed: int = 0
    specimen: Specimen = field(default_factory=Specimen)
    optics: Optics = field(default_factory=Optics)
    camera: Camera = field(default_factory=Camera)

    def __post_init__(self):
        check(self)


def simulation(study: str, *, size: int = 512, seed: int = 0, **changes) -> Simulation:
    """The defaults of a study with `changes`, each a field of Specimen, Optics or Camera by name.

    Raises ValueError in one line that names an unknown or impossible value.
    """
    if study == "cell":
        # 5 DIC planes, of which every second is a network channel; the stain stack is finer so
        # that a focus projection has planes to choose from.
        planes = {"focal_planes_um": (-3.0, -1.5, 0.0, 1.5, 3.0)}
        changes = {**planes, "stain_planes_um": (-2.0, -0.5, 1.0, 2.5, 4.0), **changes}
    parts = {}
    for name, kind in (("specimen", Specimen), ("optics", Optics), ("camera", Camera)):
        known = {item.name for item in dataclasses.fields(kind)} & changes.keys()
        parts[name] = kind(**{key: changes.pop(key) for key in known})
    if changes:
        raise ValueError(f"unknown simulation parameter {min(changes)!r}")
    return Simulation(study, size, seed, **parts)


# Fields that need not be positive: lowest and highest value.
_LIMITS = {
    "seed": (0, float("inf")),
    "size": (64, 8192),
    "nucleus_radius": (0.1, 0.9),
    "mitotic_fraction": (0, 1),
    "medium_index": (1, 2),
    "debris_per_mm2": (0, 1e6),
    "organelle_opd_um": (0, 1),
    "phase_ring_transmission": (1e-3, 1),
    "dic_bias_deg": (1, 359),
    "dic_azimuth_deg": (-360, 360),
    "stain_background_electrons": (0, 1e6),
    "read_noise_electrons": (0, 1e4),
    "offset_counts": (0, 65535),
    "illumination_unevenness": (0, 1),
    "dust_per_mm2": (0, 1e6),
    "defocus_um": (0, 100),
}


def check(values: Simulation) -> None:
    """ValueError in one line for values that no microscope has or that the grid cannot hold."""
    optics, specimen = values.optics, values.specimen
    if values.study not in STUDIES:
        raise ValueError(f"study is {values.study!r}; expected one of {', '.join(STUDIES)}")
    for part in (values, specimen, optics, values.camera):
        for item in dataclasses.fields(part):
            _check_number(item.name, getattr(part, item.name))
    if not 0 < specimen.confluence[0] <= specimen.confluence[1] <= 1:
        raise ValueError(f"confluence is {specimen.confluence}; expected 0 < low <= high <= 1")
    if optics.objective_na >= specimen.medium_index:
        raise ValueError(
            f"objective_na is {optics.objective_na}; expected less than the medium's refractive "
            f"index {specimen.medium_index}"
        )
    if optics.phase_ring_na + optics.phase_ring_width_na / 2 > optics.objective_na:
        raise ValueError(
            f"phase_ring_na {optics.phase_ring_na} does not pass an objective of NA "
            f"{optics.objective_na}"
        )
    diameter = specimen.cell_diameter_um / optics.pixel_size_um
    if not 4 <= diameter <= values.size / 2:
        raise ValueError(
            f"cell_diameter_um {specimen.cell_diameter_um} is {diameter:.0f} pixels; expected "
            f"between 4 pixels and half of the field ({values.size / 2:.0f})"
        )
    aperture = optics.objective_na + max(optics.condenser_na, optics.phase_ring_na)
    if aperture / optics.wavelength_um > 0.5 / optics.pixel_size_um:
        raise ValueError(
            f"pixel_size_um {optics.pixel_size_um} undersamples an objective of NA "
            f"{optics.objective_na} with a condenser of NA {aperture - optics.objective_na:g}; use "
            f"pixels of at most {0.5 * optics.wavelength_um / aperture:.3f} um, or smaller NAs"
        )


def _check_number(name: str, value) -> None:
    if isinstance(value, tuple):
        if not value or not all(map(math.isfinite, value)):
            raise ValueError(f"{name} is {value}; expected one or more numbers")
    elif name in _LIMITS:
        low, high = _LIMITS[name]
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}; expected {low:g} to {high:g}")
    elif isinstance(value, int | float) and not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value}; expected more than 0")
