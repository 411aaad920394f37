"""Simulated studies: cells whose truth, label-free images and stains belong together.

`simulation` collects parameters (physical units), `simulate_field` makes the arrays of one field,
`write_study` the files of a study, named as the reference data sets.
"""

from isl_jax.simulate.imaging import FieldImages, simulate_field
from isl_jax.simulate.parameters import (
    Camera,
    Optics,
    Simulation,
    Specimen,
    simulation,
)
from isl_jax.simulate.writing import field_files, write_study

__all__ = [
    "Camera",
    "FieldImages",
    "Optics",
    "Simulation",
    "Specimen",
    "field_files",
    "simulate_field",
    "simulation",
    "write_study",
]
