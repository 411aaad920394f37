"""Simulated studies: exact truth, optics against closed forms, files that others can read."""

import json

import numpy as np
import pytest
import tifffile
from scipy import ndimage, special

from isl_jax.ingest import readers
from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.presets import PRESETS
from isl_jax.simulate import field_files, optics, simulate_field, simulation, write_study
from isl_jax.simulate import writing as files
from isl_jax.simulate.cells import draw_scene, largest_components

PIXEL_UM, WAVELENGTH_UM, INDEX = 0.325, 0.55, 1.337
MICROSCOPE = optics.Microscope(PIXEL_UM, 0.6, WAVELENGTH_UM, INDEX)
ON_AXIS = np.zeros((1, 2))
# Every frequency of a grid of 0.5 µm pixels passes.
FULL_PUPIL = optics.Microscope(0.5, 1.3, WAVELENGTH_UM, INDEX)
SMALL = {"size": 96, "cell_diameter_um": 10.0}


def grating(cycles: int, *, size: int = 128, axis: int = 1) -> np.ndarray:
    """cos(2π cycles x / L), float64 [size, size]."""
    wave = np.cos(2 * np.pi * cycles * np.arange(size) / size)
    return np.broadcast_to(wave if axis == 1 else wave[:, None], (size, size)).copy()


def neighbours(labels: np.ndarray) -> np.ndarray:
    """Pixels with a pixel of another, non-zero label above, below, left or right."""
    found = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        first, second = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
        touch = (first != second) & (first > 0) & (second > 0)
        view = np.moveaxis(found, axis, 0)
        view[:-1] |= touch
        view[1:] |= touch
    return found


# Optics -----------------------------------------------------------------------------------------


def test_propagation_through_a_full_pupil_keeps_the_energy():
    rng = np.random.default_rng(0)
    wave = rng.normal(size=(64, 48)) + 1j * rng.normal(size=(64, 48))
    images = optics.partially_coherent(wave, [-5, 0, 0.3, 20], FULL_PUPIL, sources=ON_AXIS)
    np.testing.assert_allclose(images.mean((1, 2)), np.mean(np.abs(wave) ** 2), rtol=1e-5)
    np.testing.assert_allclose(images[1], np.abs(wave) ** 2, rtol=1e-5, atol=1e-5)


def test_pure_phase_vanishes_in_focus_and_turns_over_with_defocus():
    rng = np.random.default_rng(1)
    phase = 0.2 * ndimage.gaussian_filter(rng.normal(size=(96, 96)), 4, mode="wrap") * 10
    z = 0.5
    below, focus, above = optics.partially_coherent(
        np.exp(1j * phase), [-z, 0, z], FULL_PUPIL, sources=ON_AXIS
    )
    assert np.ptp(focus) < 1e-5
    # Transport of intensity: dI/dz = −∇²φ / k.
    k = 2 * np.pi * INDEX / WAVELENGTH_UM
    laplacian = sum(
        (np.roll(phase, 1, a) - 2 * phase + np.roll(phase, -1, a)) / 0.5**2 for a in (0, 1)
    )
    expected = -z / k * laplacian
    for image, sign in ((above, 1), (below, -1)):
        slope, offset = np.polyfit(expected.ravel(), (image - 1).ravel(), 1)
        assert slope == pytest.approx(sign, abs=0.1) and abs(offset) < 1e-3
        assert np.corrcoef(expected.ravel(), image.ravel())[0, 1] * sign > 0.97


def test_defocused_weak_grating_has_the_contrast_of_its_angular_spectrum():
    epsilon, cycles, z = 1e-3, 12, 3.0
    frequency = cycles / (128 * PIXEL_UM)
    image = optics.partially_coherent(
        np.exp(1j * epsilon * grating(cycles)), [z], MICROSCOPE, sources=ON_AXIS
    )[0]
    k = INDEX / WAVELENGTH_UM
    lag = 2 * np.pi * z * (np.sqrt(k**2 - frequency**2) - k)
    np.testing.assert_allclose(image - 1, -2 * epsilon * np.sin(lag) * grating(cycles), atol=1e-5)


def test_detail_beyond_the_aperture_is_not_seen():
    cycles = 50  # NA 0.66 on axis
    image = optics.partially_coherent(
        np.exp(1e-3j * grating(cycles)), [1.0], MICROSCOPE, sources=ON_AXIS
    )
    assert np.ptp(image) < 1e-5


def test_phase_contrast_turns_weak_phase_into_darkness():
    epsilon, transmission = 1e-3, 0.25
    # The two source points lie on the y axis: what a grating along x scatters passes the ring.
    image = optics.phase_contrast(
        np.exp(1j * epsilon * grating(15)), [0.0], MICROSCOPE, ring_na=0.24, ring_width_na=0.03,
        ring_transmission=transmission, num_points=2,
    )[0]  # fmt: skip
    expected = -2 * epsilon / np.sqrt(transmission) * grating(15)
    np.testing.assert_allclose(image - 1, expected, atol=2e-5)


def test_phase_contrast_has_a_bright_halo_around_a_dark_body():
    y, x = np.mgrid[-64:64, -64:64] * PIXEL_UM
    body = np.hypot(y, x) < 6
    phase = ndimage.gaussian_filter(0.5 * body, 2)
    image = optics.phase_contrast(
        np.exp(1j * phase), [0.0], MICROSCOPE, ring_na=0.24, ring_width_na=0.06,
        ring_transmission=0.4, num_points=12,
    )[0]  # fmt: skip
    halo = (np.hypot(y, x) > 7.5) & (np.hypot(y, x) < 9.5)
    assert image[body].mean() < 0.9 < 1.02 < image[halo].mean()


@pytest.mark.parametrize("azimuth_deg", [0, 90, 180])
def test_dic_of_a_phase_ramp_is_uniform(azimuth_deg):
    size, cycles, shear_um, bias = 64, 3, 0.25, np.deg2rad(70)
    gradient = 2 * np.pi * cycles / (size * PIXEL_UM)  # rad / µm along +x
    ramp = np.exp(1j * gradient * PIXEL_UM * np.arange(size))[None].repeat(size, 0)
    image = optics.dic(
        ramp, [0.0, 2.0], MICROSCOPE, shear_um=shear_um, bias_deg=70, azimuth_deg=azimuth_deg,
        sources=optics.source_points(0.2, 5, WAVELENGTH_UM),
    )  # fmt: skip
    along = gradient * shear_um * np.cos(np.deg2rad(azimuth_deg))
    expected = np.sin((along + bias) / 2) ** 2 / np.sin(bias / 2) ** 2
    np.testing.assert_allclose(image, expected, rtol=1e-4)


def test_the_empty_field_is_one_everywhere_in_every_contrast():
    empty = np.ones((60, 80), np.complex64)
    disc = optics.source_points(0.24, 9, WAVELENGTH_UM)
    prism = {"shear_um": 0.25, "bias_deg": 60, "azimuth_deg": 45}
    ring = {"ring_na": 0.24, "ring_width_na": 0.06, "ring_transmission": 0.4, "num_points": 12}
    for stack in (
        optics.partially_coherent(empty, [-5, 0, 5], MICROSCOPE, sources=disc),
        optics.dic(empty, [-5, 0, 5], MICROSCOPE, sources=disc, **prism),
        optics.phase_contrast(empty, [-5, 0, 5], MICROSCOPE, **ring),
    ):
        assert stack.shape == (3, 60, 80) and stack.dtype == np.float32
        np.testing.assert_allclose(stack, 1, atol=1e-4)


def test_condenser_fills_its_aperture_without_tilt():
    points = optics.source_points(0.24, 50, WAVELENGTH_UM)
    radius = np.hypot(*points.T) * WAVELENGTH_UM
    assert radius.max() < 0.26 and np.abs(points.mean(0)).max() < 1e-9
    assert np.mean(radius**2) == pytest.approx(0.24**2 / 2, rel=0.05)  # an even disc


def test_fluorescence_keeps_the_light_and_is_sharpest_at_the_emitter():
    emission = np.zeros((80, 64), np.float32)
    emission[30, 20] = 100
    planes = [-4.0, -1.0, 1.5, 4.0]
    stack = optics.fluorescence([(1.5, emission)], planes, MICROSCOPE)
    np.testing.assert_allclose(stack.sum((1, 2)), 100, rtol=1e-3)
    assert np.unravel_index(stack[2].argmax(), (80, 64)) == (30, 20)
    peaks = stack.max((1, 2))
    assert peaks.argmax() == 2 and peaks[2] > 2 * peaks[1] > 2 * peaks[0]
    # In focus the Airy pattern, (2 J₁(v) / v)² with v = 2π NA r / λ.
    v = 2 * np.pi * 0.6 / WAVELENGTH_UM * PIXEL_UM * np.arange(1, 6)
    airy = (2 * special.j1(v) / v) ** 2
    np.testing.assert_allclose(stack[2, 30, 21:26] / peaks[2], airy, atol=0.01)


# Cells ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_every_cell_is_whole_and_holds_its_nucleus(seed):
    scene = draw_scene(
        np.random.default_rng(seed), (220, 260), diameter=32, coverage=0.9, nucleus_radius=0.58,
        mitotic_fraction=0.3,
    )  # fmt: skip
    numbers = np.arange(1, scene.num_cells + 1)
    for labels in (scene.cells, scene.nuclei):
        np.testing.assert_array_equal(np.unique(labels[labels > 0]), numbers)
        for number in numbers:
            assert ndimage.label(labels == number)[1] == 1
    in_nucleus = scene.nuclei > 0
    np.testing.assert_array_equal(scene.cells[in_nucleus], scene.nuclei[in_nucleus])
    assert not (in_nucleus & ndimage.binary_dilation(scene.cells == 0)).any()
    assert neighbours(scene.cells).sum() > 100 and not neighbours(scene.nuclei).any()
    assert 0 < scene.mitotic.sum() < scene.num_cells and not scene.mitotic[0]


def test_a_scene_may_be_empty():
    scene = draw_scene(
        np.random.default_rng(0), (64, 64), diameter=40, coverage=1e-6, nucleus_radius=0.5,
        mitotic_fraction=0,
    )  # fmt: skip
    assert scene.cells.max() == scene.num_cells == len(np.unique(scene.nuclei)) - 1


def test_largest_components_against_each_label_alone():
    rng = np.random.default_rng(0)
    labels = ndimage.zoom(rng.integers(0, 5, (12, 12)), 3, order=0).astype(np.int32)
    kept = largest_components(labels)
    for number in range(1, 5):
        pieces = ndimage.label(labels == number)[0]
        assert (kept == number).sum() == np.bincount(pieces.ravel())[1:].max()
        assert ndimage.label(kept == number)[1] == 1 and np.all(labels[kept == number] == number)


# Fields -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", ["nucleus", "cell"])
def test_fields_are_determined_by_seed_and_number(study):
    first = simulate_field(simulation(study, seed=3, **SMALL), 5)
    again = simulate_field(simulation(study, seed=3, **SMALL), 5)
    for channel, stack in first.channels.items():
        np.testing.assert_array_equal(stack, again.channels[channel])
    np.testing.assert_array_equal(first.cells, again.cells)
    for other in (simulation(study, seed=4, **SMALL), simulation(study, seed=3, **SMALL)):
        field = simulate_field(other, 6)
        assert not np.array_equal(field.cells, first.cells)


@pytest.mark.parametrize("index", range(3))
def test_labels_of_a_field_are_exact_and_match_its_stains(index):
    field = simulate_field(simulation("cell", size=256, seed=1), index)
    for labels in (field.nuclei, field.cells):
        assert labels.dtype == np.int32 and labels.shape == (256, 256)
        np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))
        for number in range(1, labels.max() + 1):
            assert ndimage.label(labels == number)[1] == 1
    for number in range(1, field.nuclei.max() + 1):
        assert len(np.unique(field.cells[field.nuclei == number])) == 1
    assert 6 <= field.nuclei.max() <= 30 and 8 <= field.cells.max() <= 45
    dapi = field.channels["dapi"].max(0).astype(float)
    membrane = field.channels["membrane"][2].astype(float)
    in_nucleus, background = field.nuclei > 0, field.cells == 0
    assert dapi[in_nucleus].mean() > 3 * dapi[~in_nucleus].mean()
    cytoplasm = ~background & ~in_nucleus
    border = neighbours(field.cells)
    assert membrane[border].mean() > 1.2 * membrane[cytoplasm & ~border].mean()
    assert membrane[cytoplasm].mean() > 3 * membrane[background].mean()


def test_label_free_images_vary_between_fields_and_show_little_in_focus():
    nucleus = simulation("nucleus", size=128, cell_diameter_um=12.0)
    fields = [simulate_field(nucleus, index) for index in range(3)]
    for field in fields:
        bright = field.channels["bright_field"].astype(float)
        contrast = bright.std((1, 2)) / bright.mean((1, 2))
        assert contrast[1:3].min() > 0.02 and contrast.max() < 0.4
        # Either side of focus the same structure has opposite signs.
        assert np.corrcoef(bright[1].ravel(), bright[2].ravel())[0, 1] < 0.3
    means = [field.channels["bright_field"].mean() for field in fields]
    assert np.ptp(means) > 0.01 * np.mean(means)


def test_flat_light_and_no_specimen_give_shot_noise_only():
    values = simulation(
        "nucleus", size=128, cell_diameter_um=12.0, confluence=(1e-6, 1e-6), debris_per_mm2=0.0,
        dust_per_mm2=0.0, illumination_unevenness=0.0, read_noise_electrons=0.0,
    )  # fmt: skip
    field = simulate_field(values, 0)
    assert field.cells.max() == 0
    camera = values.camera
    for name in ("phase_contrast", "bright_field"):
        counts = field.channels[name].astype(float) - camera.offset_counts
        electrons = counts / camera.gain_counts_per_electron
        assert electrons.var() == pytest.approx(electrons.mean(), rel=0.1)  # Poisson
        column_means = electrons.mean((0, 1))
        assert np.ptp(column_means) < 0.02 * electrons.mean()


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("study", "layout", "planes"),
    [
        ("nucleus", "dataset1", {"ch1": 1, "ch4": 4, "ch5": 4, "cellpose": 1}),
        ("cell", "dataset2", {"w5DIC-oil-40x": 5, "w4Cy5": 5, "cell_instance": 1}),
    ],
)
def test_files_are_those_of_the_reference_data_sets(tmp_path, study, layout, planes):
    values = simulation(study, **SMALL)
    assert write_study(tmp_path / "raw", values, 2) == 2
    fields, unmatched = match_files(tmp_path / "raw", PRESETS[layout])
    assert len(fields) == 2
    assert all("Hoechst" in path.name for path in unmatched)
    for index, field in enumerate(fields):
        paths = {channel: parts[0].path for channel, parts in field.files.items()}
        assert {channel: readers.inspect(path).planes for channel, path in paths.items()} == planes
        truth = simulate_field(values, index)
        for path in paths.values():
            info = readers.inspect(path)
            assert (info.height, info.width, info.dtype) == (96, 96, np.uint16)
        label_file = paths[PRESETS[layout].labels[0]]
        labels = truth.nuclei if study == "nucleus" else truth.cells
        np.testing.assert_array_equal(readers.read(label_file)[0], labels)
        for channel, name in field_files(study, index).items():
            if channel != "labels":
                path = tmp_path / "raw" / name
                np.testing.assert_array_equal(readers.read(path), truth.channels[channel])
                with tifffile.TiffFile(path) as tiff:
                    per_um = tiff.pages[0].tags["XResolution"].value
                    assert tiff.imagej_metadata["unit"] == "um"
                assert per_um[1] / per_um[0] == pytest.approx(0.325, rel=1e-4)


def test_an_interrupted_study_is_continued(tmp_path):
    values = simulation("nucleus", **SMALL)
    write_study(tmp_path, values, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = tmp_path / "s0001_ch5.tiff"
    time = kept.stat().st_mtime_ns
    (tmp_path / "s0002_ch4.tiff").unlink()
    assert write_study(tmp_path, values, 2) == 1
    assert kept.stat().st_mtime_ns == time
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert write_study(tmp_path, values, 2) == 0


def test_several_processes_write_the_same_files(tmp_path):
    values = simulation("nucleus", **SMALL)
    write_study(tmp_path / "one", values, 3)
    seen = []

    def progress(items, total):
        seen.append(total)
        return items

    write_study(tmp_path / "two", values, 3, workers=2, progress=progress)
    assert seen == [3]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_other_parameters_are_refused_by_name(tmp_path):
    write_study(tmp_path, simulation("nucleus", **SMALL), 1)
    changed = simulation("nucleus", objective_na=0.5, **SMALL)
    with pytest.raises(ValueError, match=r"simulation\.json.*objective_na 0\.6, not 0\.5"):
        write_study(tmp_path, changed, 1)
    with pytest.raises(ValueError, match="study nucleus, not cell"):
        write_study(tmp_path, simulation("cell", **SMALL), 1)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("data")
    with pytest.raises(ValueError, match="not an empty folder"):
        write_study(tmp_path, simulation("nucleus", **SMALL), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_failure_leaves_no_half_written_file(tmp_path, monkeypatch):
    def full_disk(path, *_, **__):
        path.write_bytes(b"II*")
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "imwrite", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_study(tmp_path, simulation("nucleus", **SMALL), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["simulation.json"]
    json.loads((tmp_path / "simulation.json").read_text())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 32}, "size is 32"),
        ({"seed": -1}, "seed is -1"),
        ({"study": "tissue"}, "study is 'tissue'"),
        ({"objective_na": 0.9}, "undersamples.*at most"),
        ({"objective_na": 1.4, "pixel_size_um": 0.1}, "refractive index"),
        ({"cell_diameter_um": 0.0}, "cell_diameter_um is 0.0"),
        ({"cell_diameter_um": 200.0}, "half of the field"),
        ({"wavelength_um": float("nan")}, "wavelength_um is nan"),
        ({"confluence": (0.9, 0.2)}, "confluence"),
        ({"focal_planes_um": ()}, "focal_planes_um"),
        ({"mitotic_fraction": 2.0}, "mitotic_fraction"),
        ({"read_noise_electrons": -1.0}, "read_noise_electrons"),
        ({"colour": 1}, "unknown simulation parameter 'colour'"),
    ],
)
def test_impossible_parameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        simulation(**{"study": "nucleus", **changes})
