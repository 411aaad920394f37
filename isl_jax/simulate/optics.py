"""Images of thin transparent objects: bright field, phase contrast, DIC, and fluorescence.

Scalar Fourier optics. The specimen is a complex transmission t(x) = exp(iφ(x) − a(x)); partially
coherent illumination is a sum of intensities over points of the condenser aperture (Abbe). A
plane wave of spatial frequency s shifts the spectrum of t, which is the same as reading the pupil
at f + s: one inverse FFT for each source point and plane. Lengths in µm, frequencies in 1/µm.
All images are scaled so that the empty field (t = 1) is 1 everywhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Microscope:
    """What every contrast needs to know: the grid, the objective, the light and the medium."""

    pixel_size_um: float
    objective_na: float
    wavelength_um: float
    medium_index: float


def frequencies(shape: tuple[int, int], pixel_size_um: float) -> tuple[np.ndarray, np.ndarray]:
    """Spatial frequencies (fy [H, 1], fx [1, W]) of the FFT grid, in 1/µm."""
    fy = np.fft.fftfreq(shape[0], pixel_size_um).astype(np.float32)
    fx = np.fft.fftfreq(shape[1], pixel_size_um).astype(np.float32)
    return fy[:, None], fx[None]


def source_points(na: float, count: int, wavelength_um: float) -> np.ndarray:
    """`count` points that fill the condenser disc evenly (sunflower) → float [count, 2] in 1/µm."""
    index = np.arange(count)
    radius = na / wavelength_um * np.sqrt((index + 0.5) / count)
    angle = index * np.pi * (3 - np.sqrt(5))
    points = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    return points - points.mean(axis=0)  # no net tilt: a plane out of focus does not shift


def ring_points(na: float, count: int, wavelength_um: float) -> np.ndarray:
    """`count` points on the condenser annulus of phase contrast → float [count, 2] in 1/µm."""
    angle = 2 * np.pi * (np.arange(count) + 0.5) / count
    return na / wavelength_um * np.stack([np.sin(angle), np.cos(angle)], axis=1)


def pupil(fy, fx, na: float, wavelength_um: float) -> np.ndarray:
    """1 inside the objective's aperture, 0 outside, with an edge one frequency sample wide."""
    step = max(_step(fy), _step(fx))
    radius = np.sqrt(fy**2 + fx**2)
    return np.clip((na / wavelength_um - radius) / step + 0.5, 0, 1).astype(np.float32)


def propagation_phase(fy, fx, wavelength_um: float, medium_index: float) -> np.ndarray:
    """Phase per µm of defocus of each plane wave (angular spectrum), relative to the axis."""
    k = medium_index / wavelength_um
    axial = np.sqrt(np.maximum(k**2 - fy**2 - fx**2, 0))
    return (2 * np.pi * (axial - k)).astype(np.float32)


def phase_contrast(
    transmission,
    planes_um: Iterable[float],
    microscope: Microscope,
    *,
    ring_na: float,
    ring_width_na: float,
    ring_transmission: float,
    num_points: int,
) -> np.ndarray:
    """Zernike's positive phase contrast [P, H, W]: thicker is darker, with halos.

    The condenser annulus at `ring_na` is imaged on a phase ring that is `ring_width_na` wide,
    passes `ring_transmission` of the intensity and advances the direct light by a quarter wave.
    What the specimen scatters into the ring is treated alike, which makes the halo.
    """

    def ring(fy, fx):
        offset = np.abs(np.hypot(fy, fx) * microscope.wavelength_um - ring_na)
        plate = np.sqrt(ring_transmission) * np.exp(-0.5j * np.pi)
        return np.where(offset <= ring_width_na / 2, plate, 1).astype(np.complex64)

    sources = ring_points(ring_na, num_points, microscope.wavelength_um)
    return partially_coherent(
        transmission, planes_um, microscope, sources=sources, pupil_filter=ring
    )


def dic(
    transmission,
    planes_um: Iterable[float],
    microscope: Microscope,
    *,
    sources: np.ndarray,
    shear_um: float,
    bias_deg: float,
    azimuth_deg: float,
) -> np.ndarray:
    """Differential interference contrast (Nomarski) [P, H, W].

    Two images sheared by `shear_um` along `azimuth_deg` (from +x towards +y) interfere with a
    phase `bias_deg` between them. A gradient g of the phase along the shear gives
    sin²((g·shear + bias)/2) / sin²(bias/2).
    """
    fy, fx = frequencies(transmission.shape, microscope.pixel_size_um)
    angle = np.deg2rad(azimuth_deg)
    along = fx * np.cos(angle) + fy * np.sin(angle)
    # The prism in the condenser compensates the shear of the illumination, so every source point
    # has the same bias: the filter belongs to the object's frequency, not to the pupil's.
    shear = np.sin(np.pi * shear_um * along + np.deg2rad(bias_deg) / 2)
    shear /= np.sin(np.deg2rad(bias_deg) / 2)
    shear = shear.astype(np.float32)
    return partially_coherent(
        transmission, planes_um, microscope, sources=sources, object_filter=shear
    )


def partially_coherent(
    transmission,
    planes_um: Iterable[float],
    microscope: Microscope,
    *,
    sources: np.ndarray,
    object_filter=None,
    pupil_filter=None,
) -> np.ndarray:
    """Bright-field focal series [P, H, W]: mean intensity over the source points.

    transmission: complex [H, W], periodic beyond its borders. sources: [N, 2] in 1/µm. Returns
    float32 or float64 as the transmission's precision; the empty field is 1. `object_filter` and
    `pupil_filter` multiply what the condenser's tilt shifts (frequencies of the specimen) and what
    it does not (places in the objective's pupil).
    """
    planes = list(planes_um)
    spectrum = np.fft.fft2(transmission)
    if object_filter is not None:
        spectrum *= object_filter
    fy, fx = frequencies(transmission.shape, microscope.pixel_size_um)
    images = np.zeros((len(planes), *transmission.shape), spectrum.real.dtype)
    empty = 0.0
    for sy, sx in np.asarray(sources, np.float32):
        at = (fy + sy, fx + sx)
        collected = pupil(*at, microscope.objective_na, microscope.wavelength_um)
        if pupil_filter is not None:
            collected = collected * pupil_filter(*at)
        empty += float(np.abs(collected[0, 0]) ** 2)
        collected = spectrum * collected
        phase = propagation_phase(*at, microscope.wavelength_um, microscope.medium_index)
        for image, plane in zip(images, planes, strict=True):
            wave = collected * _phasor(phase * np.float32(plane)) if plane else collected
            field = np.fft.ifft2(wave)
            image += field.real**2 + field.imag**2
    return images / empty


def fluorescence(
    slices: Iterable[tuple[float, np.ndarray]],
    planes_um: Iterable[float],
    microscope: Microscope,
) -> np.ndarray:
    """Wide-field focal series [P, H, W] of emitting slices (height in µm, non-negative [H, W]).

    Each slice is blurred by the incoherent point spread function of its defocus: total light is
    the same in every plane.
    """
    slices = list(slices)
    shape = slices[0][1].shape
    spectra = [(height, np.fft.rfft2(emission)) for height, emission in slices]
    fy, fx = frequencies(shape, microscope.pixel_size_um)
    aperture = pupil(fy, fx, microscope.objective_na, microscope.wavelength_um)
    phase = propagation_phase(fy, fx, microscope.wavelength_um, microscope.medium_index)
    images = []
    for plane in planes_um:
        total = 0
        for height, spectrum in spectra:
            amplitude = np.fft.ifft2(aperture * _phasor(phase * np.float32(plane - height)))
            transfer = np.fft.rfft2(amplitude.real**2 + amplitude.imag**2)
            total = total + spectrum * (transfer / transfer[0, 0].real)
        images.append(np.fft.irfft2(total, s=shape))
    return np.maximum(np.stack(images), 0)


def _phasor(phase: np.ndarray) -> np.ndarray:
    out = np.empty(phase.shape, np.complex64)
    np.cos(phase, out=out.real)
    np.sin(phase, out=out.imag)
    return out


def _step(axis: np.ndarray) -> float:
    return float(abs(axis.ravel()[1] - axis.ravel()[0]))
