"""The folder of a run: whose it is, and what made it."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from isl_jax.study.environment import environment, write_json
from isl_jax.study.settings import GROUPS

# Settings that may differ between a run and its resumption: they do not change its numbers.
_FREE = ("profile", "writers", "data.num_workers", "data.placement", "data.device_mib")


def prepare_workdir(config: Mapping[str, Any], workdir: Path) -> None:
    """Record the configuration of a run and what it is made with.

    Raises ValueError, naming what differs, for a workdir that holds a run with another one.
    """
    path = workdir / "config.json"
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
    config = json.loads(json.dumps(config))
    return sorted(
        f"{name} was {before!r}, now {after!r}"
        for name, before, after in _changes(_stored_config(path), config)
        if name not in _FREE
    )


def _stored_config(path: Path) -> dict[str, Any]:
    """The configuration of a run, with the defaults of settings that it did not know yet."""
    stored = json.loads(path.read_text())
    for name, group in GROUPS.items():
        defaults = {
            field.name: field.default
            for field in dataclasses.fields(group)
            if field.default is not dataclasses.MISSING
        }
        stored[name] = defaults | stored.get(name, {})
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
