"""The folder of a run: whose it is, and what made it."""

import dataclasses
import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from isl_jax.files import read_json, write_json
from isl_jax.study.records import ISL
from isl_jax.study.settings import GROUPS

CONFIG = "config.json"
# Settings that may differ between a run and its resumption: they do not change its numbers.
_FREE = ("profile", "writers", "data.num_workers", "data.placement", "data.device_mib")
# What config.json must hold, of whatever version.
_KEYS: dict[str, Any] = {f"{name}?": dict for name in GROUPS if name != "init"}
_KEYS |= {"study": str, "stage": str, "target": dict, "init": {"kind": str}}
_PACKAGES = ("isl-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def prepare_workdir(config: Mapping[str, Any], workdir: Path) -> None:
    """Record the configuration of a run and what it is made with.

    Raises ValueError, naming what differs, for a workdir that holds a run with another one.
    """
    path = workdir / CONFIG
    if path.exists() and (changed := changed_settings(config, path)):
        raise ValueError(
            f"{path}: this workdir holds a run with other settings ({'; '.join(changed)}): "
            "use another --workdir, or repeat the settings to resume"
        )
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(path, config)
        write_json(workdir / "environment.json", environment(config))


def changed_settings(config: Mapping[str, Any], path: Path) -> list[str]:
    """What keeps a run from being the one that `path`, a `config.json`, describes."""
    return told_changes(_stored_config(path), config)


def told_changes(stored: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """`seed was 0, now 7`: how a configuration differs from one that was stored as JSON."""
    config = json.loads(json.dumps(config))  # tuples become lists, as in the file
    return sorted(
        f"{name} was {before!r}, now {after!r}"
        for name, before, after in _changes(stored, config)
        if name not in _FREE
    )


def _stored_config(path: Path) -> dict[str, Any]:
    """The configuration of a run, with the defaults of settings that it did not know yet."""
    stored = read_json(path, remedy="use another --workdir", keys=_KEYS)
    for name, group in GROUPS.items():
        defaults = {
            field.name: field.default
            for field in dataclasses.fields(group)
            if field.default is not dataclasses.MISSING
        }
        stored[name] = defaults | stored.get(name, {})
    # A setting of earlier versions, whose default is how it is done now.
    if stored["train"].get("steps_per_call") == 1:
        del stored["train"]["steps_per_call"]
    # Before these could be chosen, distance maps had all their peaks, and a head stood after ISL
    # networks alone, whatever `model.head` said.
    if "distance_peaks" not in stored["target"]:
        stored["target"]["distance_peaks"] = "all"
        carries_head = (stored["study"], stored["stage"]) == ("cell", "segment")
        if not (carries_head and stored["init"]["kind"] == ISL):
            stored["model"]["head"] = "none"
    return {"profile": "", "writers": ""} | stored


def _changes(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    changes = []
    for name in old.keys() | new.keys():
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            changes += _changes(before, after, f"{prefix}{name}.")
        elif before != after:
            changes.append((f"{prefix}{name}", before, after))
    return changes


def environment(config: Mapping[str, Any]) -> dict[str, Any]:
    """Versions, devices, machine and git revision of this process, JSON-like.

    `config_hash` is the SHA-256 of `config` as JSON with sorted keys, to find equal runs by.
    """
    return {
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processor": platform.machine(),
        "devices": [device.device_kind for device in jax.devices()],
        "backend": jax.default_backend(),
        "num_processes": jax.process_count(),
        "git_revision": _git_revision(),
        "config_hash": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
    }


def _git_revision() -> str | None:
    """Revision of the checkout that runs, with `+` after it when files differ; None outside one."""
    try:
        revision = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return revision.stdout.strip() or None if revision.returncode == 0 else None
