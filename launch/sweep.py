"""Answer "how many images must I annotate?": train and test a grid of N x init x seed.

    isl-sweep --config=configs/cell.py --config.data.root=DATA \
        --n=1,10 --inits=random,isl --seeds=0,1 --workdir=S
    isl-report --workdir=S

Pretrains once (--config.pretrain.* are its settings; or give --isl_checkpoint), then fine-tunes
(--config.train.*) and tests every run of the grid on the same withheld fields. Runs that are done
are skipped, cut ones resumed, failed ones reported at the end with exit status 1.

Cell networks from ISL carry two convolutions more than the paper's baseline. Each baseline is
therefore trained twice, without and with them (runs called random-head_n1_seed0): the first gives
the paper's gain, the second the one that the pretraining alone brings. --comparison chooses.

--dry_run prints the runs, how far each has come and how long the rest will take. On a cluster,

    isl-sweep … --executor=slurm \
        --executor_options=slurm_partition=gpu,gpus_per_node=1,timeout_min=240

queues the pretext run and, after it, the others as an array (pip install 'isl-jax[slurm]').
"""

import sys
from pathlib import Path
from typing import Any, cast

from absl import flags
from ml_collections import config_flags

from isl_jax.data.store import open_dataset
from isl_jax.launch.command import command
from isl_jax.launch.configuration import (
    configure_jax,
    find_packaged_config,
    read_config,
    to_experiment,
    whole_path,
)
from isl_jax.launch.memory import keep_freed_memory
from isl_jax.launch.submission import submit
from isl_jax.locks import locked
from isl_jax.study.grid import COMPARISONS, Comparison, Grid
from isl_jax.study.planning import Plan, plan_sweep
from isl_jax.study.settings import Experiment
from isl_jax.study.sweep import run_sweep
from isl_jax.training.stopping import InterruptedTrainingError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="FILE of the study, no stage.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep; created, or resumed.")
_N = flags.DEFINE_list("n", ["1"], "Numbers of annotated images.")
_INITS = flags.DEFINE_list("inits", ["imagenet", "isl"], "Among random, imagenet, isl.")
_COMPARISON = flags.DEFINE_enum(
    "comparison",
    "both",
    COMPARISONS,
    "Cell study: compare ISL, which carries a head, with the baseline without it (paper), with it "
    "(fair: the same network in both arms), or with both.",
)
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of weights, crops and annotated images.")
_ISL = flags.DEFINE_string(
    "isl_checkpoint", None, "Finished pretext run to use for isl, or weights as init.checkpoint."
)
_STAND_IN = flags.DEFINE_enum(
    "imagenet_stand_in",
    None,
    ["random"],
    "Use this init for imagenet, in the grid and to pretrain from, when its weights cannot be "
    "downloaded (the report says so).",
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the plan and the time it takes; run nothing.")
_EXECUTOR = flags.DEFINE_enum(
    "executor", None, ["slurm", "local"], "Queue the runs as jobs, instead of running them here."
)
_OPTIONS = flags.DEFINE_list("executor_options", [], "Options of submitit, as name=value.")
_PARALLEL = flags.DEFINE_integer(
    "parallel", None, "Jobs that run at once; default: slurm all, local one.", lower_bound=1
)


def _numbers(name: str, values: list[str]) -> tuple[int, ...]:
    if not values or not all(value.isdigit() for value in values):
        raise ValueError(f"--{name}={','.join(values)}: want whole numbers, as --{name}=1,10")
    return tuple(int(value) for value in values)


def _stages(values: dict[str, Any]) -> tuple[Experiment, Experiment]:
    """Experiments of the pretext task and of the segmentation, from a config without a stage."""
    schedule = values.pop("pretrain", None)
    if schedule is None:
        raise ValueError("a sweep takes the config file without a stage: --config=FILE")
    pretrain = values | {"stage": "pretrain", "train": schedule, "num_annotated": 0}
    # Each run of the grid gets its own init; random needs nothing else to be a valid experiment.
    segment = values | {"stage": "segment", "init": values["init"] | {"kind": "random"}}
    return to_experiment(pretrain), to_experiment(segment)


def _plan() -> Plan:
    if _CONFIG.value is None or not _WORKDIR.value:
        raise ValueError("--config=FILE and --workdir=FOLDER are needed; see --help")
    unknown = set(_INITS.value) - {"random", "imagenet", "isl"}
    if unknown:
        raise ValueError(f"--inits: {sorted(unknown)[0]!r} is none of random, imagenet, isl")
    grid = Grid(
        _numbers("n", _N.value),
        tuple(_INITS.value),
        _numbers("seeds", _SEEDS.value),
        cast(Comparison, _COMPARISON.value),
    )
    if _EXECUTOR.value == "slurm" and _CONFIG.value.model.compute_dtype == "auto":
        # auto looks at this machine, and queues are fed from machines without an accelerator.
        raise ValueError(
            "--executor=slurm cannot know the nodes: set --config.model.compute_dtype=bfloat16 "
            "for GPUs, float32 for CPUs"
        )
    pretrain, segment = _stages(read_config(_CONFIG))
    open_dataset(segment.data.root)  # before any run, and before a job waits in a queue
    return plan_sweep(
        pretrain,
        segment,
        grid,
        # Whole paths: jobs and later sweeps may start in other folders.
        Path(_WORKDIR.value).absolute(),
        isl_checkpoint=whole_path(_ISL.value) if _ISL.value else None,
        stand_in=_STAND_IN.value,
    )


def _options() -> dict[str, str | int]:
    options: dict[str, str | int] = {}
    for text in _OPTIONS.value:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--executor_options: {text!r} is not name=value")
        options[name] = int(value) if value.isdigit() else value
    return options


def main() -> int:
    """Run, queue or describe the sweep of the flags."""
    keep_freed_memory()
    configure_jax()
    plan = _plan()
    if _DRY_RUN.value:
        print(plan.table())
        return 0
    try:
        if _EXECUTOR.value:
            failures = submit(
                plan, cluster=_EXECUTOR.value, options=_options(), parallel=_PARALLEL.value
            )
        else:
            with locked(plan.workdir, "choose another --workdir"):
                failures = run_sweep(plan)
    except InterruptedTrainingError as stopped:
        print(stopped, file=sys.stderr)
        return 128 + 15
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


_main = command(main)


def run() -> None:
    """Entry point of `isl-sweep`."""
    find_packaged_config()
    _main()


if __name__ == "__main__":
    run()
