"""The plugin in a window of napari, on a screen that is not there: Xvfb."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

# A process of its own: the platform of Qt in the other tests has no window.
SCRIPT = """
import sys
import napari
from npe2 import PluginManager

viewer = napari.Viewer()
viewer.window.resize(1200, 800)
manifest = PluginManager.instance().get_manifest("isl-jax")
for widget in manifest.contributions.widgets:
    dock, step = viewer.window.add_plugin_dock_widget("isl-jax", widget.display_name, tabify=True)
    print(type(step).__name__)
viewer.open_sample("isl-jax", "cells")
assert len(step.viewer.layers) == 5
viewer.screenshot(sys.argv[1], canvas_only=False, flash=False)
viewer.close()
"""


def test_all_steps_are_docked_and_drawn(napari, tmp_path):
    if shutil.which("xvfb-run") is None:
        pytest.skip("no xvfb-run (Debian: xvfb)")
    picture = tmp_path / "window.png"
    ended = subprocess.run(
        ["xvfb-run", "-a", "-s", "-screen 0 1280x900x24", sys.executable, "-c", SCRIPT, picture],
        env={k: v for k, v in os.environ.items() if k != "QT_QPA_PLATFORM"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "could not connect to display" in ended.stderr or "no Qt platform plugin" in ended.stderr:
        pytest.skip(f"Qt cannot draw here: {ended.stderr.strip().splitlines()[-1]}")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["ImagesStep", "AnnotateStep", "TrainStep", "PredictStep"]
    pixels = imagecodecs.png_decode(Path(picture).read_bytes())
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 200
