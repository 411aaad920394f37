"""Small sweeps, shared with the tests of the study."""

from tests.study.conftest import fake_model, make_dataset, make_sweep

__all__ = ["fake_model", "make_dataset", "make_sweep"]
