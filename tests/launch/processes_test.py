"""Which GPUs a process takes, by what a cluster tells it; and two such processes on CPU devices."""

import os
import subprocess
import sys

import jax
import pytest

from isl_jax.launch.processes import own_gpus, start_processes, visible_gpus
from tests.training.processes_test import free_port

STEP = {"SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_LOCALID": "2", "SLURM_NODEID": "0"}
ALONE = STEP | {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_LOCALID": "0", "SLURM_NODEID": "1"}
ALL: list[int] = []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        # One task a node: all GPUs of it, whatever their number.
        (ALONE | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, ALL),
        (ALONE | {"SLURM_GPUS_ON_NODE": "4"}, ALL),
        (ALONE, ALL),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, ALL),
        # One task a GPU, which all of them see.
        (STEP | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [2]),
        (STEP | {"ROCR_VISIBLE_DEVICES": "0,1,2,3"}, [2]),
        (STEP | {"SLURM_GPUS_ON_NODE": "4"}, [2]),
        (STEP | {"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_GPUS_PER_TASK": "1"}, [2]),
        # Several GPUs a task.
        (STEP | {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, [4, 5]),
        (STEP | {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7", "SLURM_GPUS_PER_TASK": "1"}, [2]),
        # Bound by the cluster: a task sees its own alone, numbered as it likes.
        (STEP | {"CUDA_VISIBLE_DEVICES": "2"}, ALL),
        (STEP | {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_PER_TASK": "a100:2"}, ALL),
        (STEP | {"CUDA_VISIBLE_DEVICES": "4,5", "SLURM_TRES_PER_TASK": "cpu:4,gres/gpu:2"}, ALL),
        (STEP | {"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_GPUS_ON_NODE": "16"}, ALL),
        # mpirun within a job: SLURM started one daemon, that daemon four tasks.
        (
            ALONE
            | {"OMPI_COMM_WORLD_LOCAL_RANK": "3", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
            | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"},
            [3],
        ),
    ],
)
def test_a_task_takes_the_gpus_of_its_node_or_its_share(environment, expected):
    assert own_gpus(environment) == expected


def test_tasks_of_nodes_that_differ():
    tasks = STEP | {"SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "CUDA_VISIBLE_DEVICES": "0,1"}
    first = [own_gpus(tasks | {"SLURM_LOCALID": i, "SLURM_NODEID": "1"}) for i in ("0", "1")]
    assert first == [[0], [1]]
    assert own_gpus(tasks | {"SLURM_LOCALID": "0", "SLURM_NODEID": "2"}) == ALL


@pytest.mark.parametrize(
    ("value", "count"),
    [("", 0), ("-1", 0), ("NoDevFiles", 0), ("0,-1,1", 1), ("GPU-8932f937,MIG-5c0f", 2)],
)
def test_visible_gpus_as_cuda_counts_them(value, count):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": value}) == count


@pytest.mark.parametrize("coordinator", [(None, None, None), ("localhost:1", 2, 0)])
def test_jax_is_told_and_does_not_choose(monkeypatch, coordinator):
    told = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **rest: told.update(rest))
    slurm = ALONE | {"SLURM_STEP_NUM_TASKS": "2", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    start_processes(*coordinator)
    assert told["local_device_ids"] == ALL  # and not None, which jax reads as [SLURM_LOCALID]


_THREE, _FLAG = "--xla_force_host_platform_device_count=3", "--xla_gpu_deterministic_ops=true"
_PROGRAM = """
import os, sys, jax
from isl_jax.launch.processes import choose_deterministic_kernels, start_processes, tell_devices
given = sys.argv[1:]
choose_deterministic_kernels()
start_processes(*((given[0], 2, int(given[1])) if given else ()))
tell_devices()
print(jax.config._read('jax_cuda_visible_devices'), jax.local_device_count(), jax.device_count())
print(os.environ['XLA_FLAGS'])
"""


@pytest.mark.parametrize("by_hand", [False, True], ids=["srun", "coordinator"])
@pytest.mark.parametrize("a_node", [1, 2])
def test_two_processes_of_a_job(by_hand, a_node):
    port = free_port()
    job = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": _THREE,
        "JAX_COORDINATOR_PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "0,1",
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2" if a_node == 2 else "1(x2)",
    }
    programs = []
    for rank in range(2):
        place = ("0", str(rank)) if a_node == 2 else (str(rank), "0")
        task = {"SLURM_PROCID": str(rank), "SLURM_NODEID": place[0], "SLURM_LOCALID": place[1]}
        given = (f"localhost:{port}", str(rank)) if by_hand else ()
        programs.append(
            subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *given],
                env=os.environ | job | task,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    said = [program.communicate(timeout=120)[0].splitlines() for program in programs]
    assert [program.returncode for program in programs] == [0, 0]
    assert said[0][0] == "training on 6 × cpu, 2 processes of 3"
    visible = ["all", "all"] if a_node == 1 else ["0", "1"]
    assert [lines[-2:] for lines in said] == [
        [f"{ids} 3 6", f"{_THREE} {_FLAG}"] for ids in visible
    ]


class Gpu:
    platform, device_kind = "gpu", "H100"


@pytest.mark.parametrize(
    ("count", "line", "warning"),
    [
        (4, "training on 4 × H100, 4 of 4 visible GPUs", ""),
        (1, "training on 1 × H100, 1 of 4 visible GPUs", "4 GPUs are visible and 1 are used"),
    ],
)
def test_idle_gpus_are_told(monkeypatch, capsys, count, line, warning):
    from isl_jax.launch import processes

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    for name in ("devices", "local_devices"):
        monkeypatch.setattr(jax, name, lambda: [Gpu()] * count)
    processes.tell_devices()
    told = capsys.readouterr()
    assert told.out == f"{line}\n"
    assert warning in told.err and bool(told.err) == bool(warning)


def test_a_jax_without_cuda_beside_gpus_is_told(monkeypatch, capsys):
    from isl_jax.launch import processes

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    processes.tell_devices()
    assert capsys.readouterr().err == ""  # the CPU was chosen
    monkeypatch.setattr(processes, "_cpu_is_chosen", lambda: False)
    processes.tell_devices()
    assert "4 GPUs are visible and none is used" in capsys.readouterr().err
