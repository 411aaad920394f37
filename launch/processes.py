"""Processes that train together: how they find each other, and which devices each of them takes."""

import itertools
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import jax

# How long the other processes of a run wait at their end for the first, which has more to do.
_LAST_WORK_SECONDS = 3600
# What tells a process which GPUs it may see; the first that is set counts.
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def start_processes(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Join the other processes of a run that has several; before anything else of jax.

    `coordinator` is HOST:PORT of process 0. Without it, the tasks that SLURM's srun started find
    each other, and a process that is alone stays alone. One task a node takes all GPUs of the node,
    several share them. Raises ValueError for half an address.
    """
    given = (coordinator, num_processes, process_id)
    if any(value is not None for value in given):
        if not all(value is not None for value in given):
            raise ValueError("--coordinator, --num_processes and --process_id belong together")
        if not 0 <= int(process_id or 0) < int(num_processes or 0):
            raise ValueError(
                f"--process_id={process_id}: choose 0 to {int(num_processes or 0) - 1}, "
                "another one in each process"
            )
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) <= 1:
        return
    # Left alone, jax takes one GPU a task wherever it finds a cluster.
    chosen = None if "JAX_LOCAL_DEVICE_IDS" in os.environ else own_gpus(os.environ)
    jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        local_device_ids=chosen,
        shutdown_timeout_seconds=_LAST_WORK_SECONDS,
    )


def own_gpus(environment: Mapping[str, str]) -> list[int]:
    """Which of the visible GPUs this process takes, counted from 0; an empty list means all.

    Several tasks of one node that see the same GPUs share them evenly, in the order of their ranks;
    those that see their own GPUs alone, because the cluster bound them, take these.
    """
    rank, tasks = _place_on_node(environment)
    visible = visible_gpus(environment)
    own = _gpus_a_task(environment)
    if tasks == 1 or (visible is None and own):
        return []
    if visible is None:
        return [rank]
    # Bound: no more to be seen than a task's own, fewer than the node has, or fewer than tasks.
    on_node = int(environment.get("SLURM_GPUS_ON_NODE") or visible)
    if visible <= (own or 0) or visible < on_node or visible < tasks:
        return []
    share = own if own and own * tasks <= visible else visible // tasks
    return list(range(rank * share, (rank + 1) * share))


def visible_gpus(environment: Mapping[str, str]) -> int | None:
    """How many GPUs a process with this environment may see; None where nothing tells."""
    for name in _VISIBLE:
        if name in environment:
            # CUDA looks no further than an entry that names none, as -1 and SLURM's NoDevFiles do.
            entries = map(str.strip, environment[name].split(","))
            return len(list(itertools.takewhile(_names_a_gpu, entries)))
    if environment.get("SLURM_GPUS_ON_NODE"):
        return int(environment["SLURM_GPUS_ON_NODE"])
    return len(list(Path("/dev").glob("nvidia[0-9]*"))) or None


def _names_a_gpu(entry: str) -> bool:
    return re.match(r"\d|GPU-|MIG-", entry) is not None


def _place_on_node(environment: Mapping[str, str]) -> tuple[int, int]:
    """Rank of this process among those that srun or mpirun started on this node; their number."""
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in environment:
        rank = int(environment["OMPI_COMM_WORLD_LOCAL_RANK"])
        return rank, int(environment["OMPI_COMM_WORLD_LOCAL_SIZE"])
    # "4(x2),3": two nodes with four tasks, then one with three.
    tasks: list[int] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        count, _, times = part.rstrip(")").partition("(x")
        tasks += [int(count)] * int(times or 1)
    node = int(environment.get("SLURM_NODEID", "0"))
    return int(environment.get("SLURM_LOCALID", "0")), tasks[min(node, len(tasks) - 1)]


def _gpus_a_task(environment: Mapping[str, str]) -> int | None:
    """GPUs that the job asked for each task, if it did: `--gpus-per-task=2` or `=a100:2`."""
    asked = environment.get("SLURM_TRES_PER_TASK", "")
    if "SLURM_GPUS_PER_TASK" in environment:
        asked = f"gpu:{environment['SLURM_GPUS_PER_TASK']}"
    found = re.search(r"gpu[^,]*?(\d+)(?=,|$)", asked)
    return int(found[1]) if found else None


def tell_devices() -> None:
    """Print what the run computes on, in the first process; warn of GPUs that are left idle."""
    here, everywhere, processes = jax.local_devices(), jax.devices(), jax.process_count()
    on_gpu = here[0].platform == "gpu"
    visible = visible_gpus(os.environ) or 0
    if jax.process_index() == 0:
        told = [f"training on {len(everywhere)} × {here[0].device_kind}"]
        told += [f"{processes} processes of {len(here)}"] if processes > 1 else []
        told += [f"{len(here)} of {max(visible, len(here))} visible GPUs"] if on_gpu else []
        print(*told, sep=", ", flush=True)
    if not on_gpu:
        if visible and here[0].platform == "cpu" and not _cpu_is_chosen():
            _warn(
                f"{visible} GPUs are visible and none is used: this jax has no CUDA "
                "(pip install 'isl-jax[cuda12]'); JAX_PLATFORMS=cpu chooses the CPU"
            )
        return
    shared = own_gpus(os.environ) if processes > 1 else []
    used = len(shared) * _place_on_node(os.environ)[1] if shared else len(here)
    if used < visible:
        _warn(
            f"{visible} GPUs are visible and {used} are used: start one task a node, or as many "
            f"tasks as divide {visible}"
        )


def _cpu_is_chosen() -> bool:
    return os.environ.get("JAX_PLATFORMS", "").startswith("cpu")


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def choose_deterministic_kernels() -> None:
    """Let GPUs add in one order and choose kernels without timing them; before jax computes.

    Two runs of one program on one kind of GPU then agree bit for bit, for some of the speed. CPU
    and TPU do so anyway.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} {_DETERMINISTIC}".strip()
