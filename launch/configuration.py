"""From `--config=FILE:ARGUMENT --config.key=value` to an experiment."""

import importlib.resources
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from isl_jax.locks import locked
from isl_jax.models.weights import is_remote
from isl_jax.study.settings import Experiment

# Ways to say how long a training is, of which one counts.
_LENGTHS = ("num_steps", "num_epochs", "num_samples")


def find_packaged_config() -> None:
    """Let `--config=configs/cell.py:…` or `--config=cell:…` work outside a checkout.

    A path that does not exist here means the file of that name that came with the package. Call
    before absl reads the command line.
    """
    for index, argument in enumerate(sys.argv):
        if argument.startswith("--config="):
            path, colon, text = argument.removeprefix("--config=").partition(":")
            packaged = importlib.resources.files("isl_jax.configs") / f"{Path(path).stem}.py"
            if not Path(path).exists() and packaged.is_file():
                sys.argv[index] = f"--config={packaged}{colon}{text}"


def locked_by_first(folder: Path, remedy: str) -> AbstractContextManager[None]:
    """`locked`, of a run of several processes by the first of them."""
    return locked(folder, remedy) if jax.process_index() == 0 else nullcontext()


def configure_jax() -> None:
    """Keep compiled programs between runs: a second start is then several times faster.

    Where no such folder can be written, they are compiled anew in each run.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache.absolute() / "isl_jax" / "compilation"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return
    if os.access(folder, os.W_OK | os.X_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))


def read_config(flag: flags.FlagHolder[Any]) -> dict[str, Any]:
    """Content of a configuration file with what the command line changes, as nested dicts."""
    given = config_flags.get_override_values(flags.FLAGS[flag.name])
    return with_given_length(flag.value.to_dict(), given)


def with_given_length(config: Mapping[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """Let a length of training on the command line outrank those that the file sets.

    `given` are the keys on the command line, as `train.num_epochs`. Among several of one stage the
    order of configs/base.py decides; 0 is no length.
    """
    values, given = dict(config), set(given)
    for stage in ("pretrain", "train"):
        lengths = [n for n in _LENGTHS if f"{stage}.{n}" in given and config[stage][n]]
        if lengths:
            values[stage] = config[stage] | {n: 0 for n in _LENGTHS if n not in lengths}
    return values


def whole_path(text: str) -> str:
    """A path from the root; where weights are fetched from stays as it is."""
    return text if is_remote(text) else str(Path(text).absolute())


def to_experiment(config: Mapping[str, Any]) -> Experiment:
    """Build an experiment of a configuration and this machine.

    `model.compute_dtype=auto` becomes the one that suits the device; without `init.weights`, the
    environment variable ISL_JAX_IMAGENET may name the ImageNet weights file.
    """
    data, model, init = (dict(config[name]) for name in ("data", "model", "init"))
    if init["weights"] is None:
        init["weights"] = os.environ.get("ISL_JAX_IMAGENET")
    if model["compute_dtype"] == "auto":
        model["compute_dtype"] = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    # Whole paths: what a workdir remembers must hold in any folder.
    paths = ((data, "root"), (data, "choose_with"), (init, "checkpoint"), (init, "weights"))
    for section, name in paths:
        if section[name]:
            section[name] = whole_path(section[name])
    return Experiment.from_mapping(dict(config) | {"data": data, "model": model, "init": init})
