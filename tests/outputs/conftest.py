"""Models and images, shared with the tests of inference."""

from tests.inference.conftest import make_model, make_planes

__all__ = ["make_model", "make_planes"]
