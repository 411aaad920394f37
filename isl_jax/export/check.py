"""Is an export the model that it came from? And are the packages there that can tell?"""

import importlib
from types import ModuleType

import jax
import numpy as np

from isl_jax.inference.model import Model

TOLERANCE = 1e-4


def draw_images(model: Model, height: int, width: int) -> np.ndarray:
    """Two standardised images `[2, H, W, C]` float32 of noise."""
    shape = (2, height, width, model.info.network.in_channels)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def exact_outputs(model: Model, images: np.ndarray) -> np.ndarray:
    """Raw outputs of `Model.outputs`, in full float32 on GPUs too, which round by default."""
    with jax.default_matmul_precision("highest"):
        return model.outputs(images)


def check_equal(found: np.ndarray, ours: np.ndarray, who: str) -> None:
    """RuntimeError if an export's outputs are not ours within 1e-4 (of the largest, above 1)."""
    difference = float(np.abs(found - ours).max()) / max(1.0, float(np.abs(ours).max()))
    if found.shape != ours.shape or not difference <= TOLERANCE:
        raise RuntimeError(f"{who} gives outputs that differ from ours by {difference:.1e}")


def need(name: str) -> ModuleType:
    """Import an optional package; ValueError that tells how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0] if not name.startswith("bioimageio") else "bioimageio.core"
        raise ValueError(
            f"this format needs the package {package} ({error}): pip install 'isl-jax[export]'"
        ) from None
