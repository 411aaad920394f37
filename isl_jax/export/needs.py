"""Optional packages of the exports: one clear line where one is missing."""

import importlib
from types import ModuleType


def need(name: str) -> ModuleType:
    """Import an optional package; ValueError that tells how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0] if not name.startswith("bioimageio") else "bioimageio.core"
        raise ValueError(
            f"this format needs the package {package} ({error}): pip install 'isl-jax[export]'"
        ) from None
