"""Simulate a study: cells, their label-free images and stains, and exact labels.

Nuclei (phase contrast, bright field and DAPI), files named as data set 1:
  launch/simulate.py --out=RAW --study=nucleus --fields=24 --size=512 --seed=0
Touching cells (DIC and CellMask stacks), files named as data set 2, on two processes:
  launch/simulate.py --out=RAW --study=cell --fields=24 --size=512 --seed=0 --workers=2
Smaller cells in dim light, as a harder study:
  launch/simulate.py --out=RAW --cell_diameter_um=14 --label_free_electrons=1000

The same options give the same files. Fields that --out already has are kept, so an interrupted
command is continued by giving it again, and a larger --fields adds fields.
"""

from functools import partial
from pathlib import Path

from absl import flags
from tqdm import tqdm

from isl_jax.launch.command import command
from isl_jax.locks import locked
from isl_jax.simulate import Camera, Optics, Specimen, simulation, write_study
from isl_jax.task import STUDIES

_OUT = flags.DEFINE_string("out", None, "Folder to write the fields to.")
_STUDY = flags.DEFINE_enum("study", "nucleus", STUDIES, "Which data set to simulate.")
_FIELDS = flags.DEFINE_integer("fields", 24, "Number of fields of view.", lower_bound=1)
_SIZE = flags.DEFINE_integer("size", 512, "Height and width of a field, pixels.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed; a field is determined by the seed and its number.")
_WORKERS = flags.DEFINE_integer("workers", 1, "Processes that simulate fields.", lower_bound=1)

# Physical parameters: the defaults are those of the simulator.
_PHYSICAL = [
    flags.DEFINE_float(name, getattr(default, name), text)
    for default, name, text in (
        (Optics(), "pixel_size_um", "Pixel size in the specimen, µm."),
        (Optics(), "objective_na", "Numerical aperture of the objective."),
        (Optics(), "condenser_na", "Numerical aperture of the condenser (0 is a laser beam)."),
        (Optics(), "wavelength_um", "Wavelength of the transmitted light, µm."),
        (Optics(), "dic_shear_um", "Shear of the DIC prism, µm."),
        (Optics(), "dic_bias_deg", "Bias of the DIC prism, degrees."),
        (Specimen(), "cell_diameter_um", "Typical diameter of a cell, µm."),
        (Specimen(), "cell_height_um", "Typical height of a cell, µm."),
        (Specimen(), "medium_index", "Refractive index of the medium."),
        (Specimen(), "cytoplasm_index", "Refractive index of the cytoplasm."),
        (Specimen(), "nucleus_index", "Refractive index of the nucleus."),
        (Specimen(), "mitotic_fraction", "Share of dividing cells."),
        (Camera(), "label_free_electrons", "Mean signal of a label-free pixel, electrons."),
        (Camera(), "stain_electrons", "Signal of a typical stained pixel, electrons."),
        (Camera(), "read_noise_electrons", "Read noise of the camera, electrons."),
        (Camera(), "defocus_um", "Standard deviation of the focus between fields, µm."),
    )
]
_CONFLUENCE = flags.DEFINE_list(
    "confluence", [str(value) for value in Specimen().confluence],
    "Lowest and highest share of a field that colonies may cover.",
)  # fmt: skip
_FOCAL_PLANES = flags.DEFINE_list(
    "focal_planes_um", None, "Focal planes of the label-free stack, µm (default: the study's)."
)


def main() -> int | None:
    """Check the options, then simulate the fields that are not there yet."""
    if _OUT.value is None:
        raise ValueError("no --out: give the folder to write the simulated fields to")
    changes: dict = {flag.name: flag.value for flag in _PHYSICAL}
    changes["confluence"] = _numbers("confluence", _CONFLUENCE.value, count=2)
    if _FOCAL_PLANES.value is not None:
        changes["focal_planes_um"] = _numbers("focal_planes_um", _FOCAL_PLANES.value)
    parameters = simulation(_STUDY.value, size=_SIZE.value, seed=_SEED.value, **changes)
    out = Path(_OUT.value)
    progress = partial(tqdm, desc="simulate", unit="field")
    with locked(out, "choose another --out"):
        written = write_study(
            out, parameters, _FIELDS.value, workers=_WORKERS.value, progress=progress
        )
    kept = _FIELDS.value - written
    print(f"{out}: {written} fields written" + (f", {kept} were there already" if kept else ""))
    return None


def _numbers(name: str, texts: list[str], count: int | None = None) -> tuple[float, ...]:
    try:
        numbers = tuple(float(text) for text in texts)
    except ValueError:
        raise ValueError(f"--{name} is {','.join(texts)!r}; expected numbers and commas") from None
    if not numbers or (count and len(numbers) != count):
        raise ValueError(f"--{name} has {len(numbers)} values; expected {count or 'at least 1'}")
    return numbers


run = command(main)

if __name__ == "__main__":
    run()
