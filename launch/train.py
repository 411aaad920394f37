"""Train one model: the pretext task (predict a stain) or a segmentation.

    isl-train --config=configs/cell.py:pretrain --config.data.root=DATA --workdir=W0
    isl-train --config=configs/cell.py:segment,init=isl,n=1 --config.init.checkpoint=W0 \
        --config.data.root=DATA --workdir=W1

The text after the colon chooses the stage, where the weights come from (init=random|imagenet|isl)
and how many annotated images are used (n). Every key of the configuration can be overridden with
--config.KEY=VALUE; the files in configs/ explain each. The workdir gets config.json,
environment.json, metrics.jsonl, checkpoints/ and model/. The same command on the same workdir
resumes an interrupted run.

All devices of a machine are used. Several machines: start the same command on each, with srun, or
with --coordinator=HOST:PORT --num_processes=N --process_id=0..N-1; train.batch_size is for all of
them together. docs/training.md and launch/slurm/ have more.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from isl_jax.launch.command import command
from isl_jax.launch.configuration import (
    configure_jax,
    find_packaged_config,
    locked_by_first,
    read_config,
    to_experiment,
)
from isl_jax.launch.memory import keep_freed_memory
from isl_jax.launch.processes import (
    choose_deterministic_kernels,
    start_processes,
    tell_devices,
)
from isl_jax.study.experiment import run_experiment
from isl_jax.training.stopping import InterruptedTrainingError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="FILE:STAGE,init=…,n=…")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; created, or resumed.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0 of several.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes train together.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
_DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "On GPUs, the same bits in every run of one command; slower."
)


def main() -> int:
    """Run the training that the flags describe."""
    if _CONFIG.value is None or not _WORKDIR.value:
        raise ValueError("--config=FILE:STAGE and --workdir=FOLDER are needed; see --help")
    if not _CONFIG.value.stage:
        raise ValueError(
            "name the stage after the config file: --config=FILE:pretrain or "
            "--config=FILE:segment,init=isl,n=1"
        )
    keep_freed_memory()
    if _DETERMINISTIC.value:
        choose_deterministic_kernels()
    start_processes(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    configure_jax()
    tell_devices()
    try:
        with locked_by_first(Path(_WORKDIR.value), "choose another --workdir"):
            run_experiment(to_experiment(read_config(_CONFIG)), Path(_WORKDIR.value))
    except InterruptedTrainingError as stopped:
        print(stopped, file=sys.stderr)
        return 128 + 15
    print(f"model: {Path(_WORKDIR.value) / 'model'}")
    return 0


_main = command(main)


def run() -> None:
    """Entry point of `isl-train`."""
    find_packaged_config()
    _main()


if __name__ == "__main__":
    run()
