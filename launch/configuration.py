"""From `--config=FILE:ARGUMENT --config.key=value` to an experiment."""

import importlib.resources
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from isl_jax.study.settings import Experiment

# How long the other processes of a run wait at their end for the first, which has more to do.
_LAST_WORK_SECONDS = 3600
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


def start_processes(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Join the other processes of a run that has several; before anything else of jax.

    `coordinator` is HOST:PORT of process 0. Without it, the tasks that SLURM's srun started find
    each other, and a process that is alone stays alone. Raises ValueError for half an address.
    """
    given = (coordinator, num_processes, process_id)
    if all(value is not None for value in given):
        if not 0 <= int(process_id or 0) < int(num_processes or 0):
            raise ValueError(
                f"--process_id={process_id}: choose 0 to {int(num_processes or 0) - 1}, "
                "another one in each process"
            )
        jax.distributed.initialize(
            coordinator, num_processes, process_id, shutdown_timeout_seconds=_LAST_WORK_SECONDS
        )
    elif any(value is not None for value in given):
        raise ValueError("--coordinator, --num_processes and --process_id belong together")
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        jax.distributed.initialize(shutdown_timeout_seconds=_LAST_WORK_SECONDS)


def configure_jax() -> None:
    """Keep compiled programs between runs: a second start is then several times faster."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "isl_jax" / "compilation"))


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
    for section, name in ((data, "root"), (init, "checkpoint"), (init, "weights")):
        if section[name]:
            section[name] = str(Path(section[name]).absolute())
    return Experiment.from_mapping(dict(config) | {"data": data, "model": model, "init": init})
