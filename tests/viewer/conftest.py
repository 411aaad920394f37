"""Qt without a screen, viewers without a window, models and images."""

import os
import time
import warnings
from collections.abc import Callable

import pytest

# No window is needed to drive the steps; those who test one say so (`window_test`).
os.environ["QT_QPA_PLATFORM"] = "offscreen"

from tests.inference.conftest import make_model, make_planes
from tests.study.conftest import fake_model, make_dataset

__all__ = ["fake_model", "make_dataset", "make_model", "make_planes"]


@pytest.fixture(scope="session")
def napari():
    """The package, with its plugins found; skips where it, or what Qt needs, is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import napari
            import qtpy.QtWidgets  # noqa: F401
            from napari.plugins import _initialize_plugins
        except ImportError as error:  # of a package, or of a library of the system
            pytest.skip(f"napari with Qt cannot be imported: {error}")
        _initialize_plugins()
    return napari


@pytest.fixture
def viewer(napari):
    """A viewer without a window."""
    from napari.components import ViewerModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the viewer's, none of ours
        yield ViewerModel()


@pytest.fixture(scope="session")
def application(napari):
    """The Qt application that widgets need."""
    from qtpy.QtWidgets import QApplication

    return QApplication.instance() or QApplication([])


@pytest.fixture
def wait(application) -> Callable[..., None]:
    """`wait(condition)`: let Qt work until it holds."""

    def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "nothing happened"
            application.processEvents()
            time.sleep(0.005)

    return until
