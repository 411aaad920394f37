"""What a run was made with: versions, devices, source revision."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

_PACKAGES = ("isl-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def _git_revision() -> str | None:
    """Revision of the checkout that runs, with `+` after it when files differ; None outside one."""
    here = Path(__file__).parent
    try:
        revision = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return revision.stdout.strip() or None if revision.returncode == 0 else None


def environment(config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Versions, devices, machine and git revision of this process, JSON-like.

    `config_hash` is the SHA-256 of `config` as JSON with sorted keys, to find equal runs by.
    """
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processor": platform.machine(),
        "devices": [device.device_kind for device in devices],
        "backend": jax.default_backend(),
        "num_processes": jax.process_count(),
        "git_revision": _git_revision(),
        "config_hash": None if config is None else _hash(config),
    }


def _hash(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON that appears whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    temporary.replace(path)
