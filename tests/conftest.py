"""Four CPU devices and a shared compilation cache for every test."""

import os
from pathlib import Path

# Both must be set before jax starts a backend.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "compilation")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real microscopy sets, named by the environment variable ISL_JAX_DATA."""
    root = os.environ.get("ISL_JAX_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("real data not found: set ISL_JAX_DATA to the folder that holds the sets")
    return Path(root)
