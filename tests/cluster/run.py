"""Job scripts and sweeps on a real SLURM cluster of two nodes on this machine: `make test-cluster`.

    python -m tests.cluster.run [FOLDER]

Starts the cluster of `slurm.py` and ends it. Jobs compute on the CPU, two devices a process, with
the encoder "tiny": what is tested is how processes are started, stopped and queued. Says what is
missing where it cannot run, with exit status 2.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from isl_jax.launch.processes import own_gpus
from tests.cluster.slurm import Cluster, missing
from tests.study.conftest import write_dataset

ROOT = Path(__file__).parents[2]
_SCRIPTS = ROOT / "launch" / "slurm"
_MINUTES = 60
# Requests of srun, and the GPUs that their tasks take, by rank.
_REQUESTS = {
    "--nodes=2 --ntasks-per-node=1 --gpus-per-node=4": [[], []],
    "--nodes=1 --ntasks-per-node=4 --gpus-per-node=4": [[0], [1], [2], [3]],
    "--nodes=1 --ntasks-per-node=2 --gpus-per-node=4": [[0, 1], [2, 3]],
    "--nodes=1 --ntasks=2 --gpus-per-task=2": [[], []],
    "--nodes=1 --ntasks=2 --gpus-per-task=1": [[], []],
    "--nodes=2 --ntasks=3 --gpus-per-node=2": [[0], [1], []],
}
_SHORT = (
    "--config.model.encoder=tiny",
    "--config.model.compute_dtype=float32",
    "--config.data.crop_size=32",
    "--config.data.placement=host",
    "--config.writers=",
)


def _key(stage: str, **values: object) -> list[str]:
    return [f"--config.{stage}.{name}={value}" for name, value in values.items()]


def check_gpus(cluster: Cluster) -> None:
    """SLURM's own variables, for every way of asking for GPUs."""
    for request, expected in _REQUESTS.items():
        # A file each: long lines of several tasks run into each other.
        command = f"env -0 > {cluster.folder}/task$SLURM_PROCID.env"
        cluster.tell("srun", *request.split(), "bash", "-c", command)
        told = [(cluster.folder / f"task{rank}.env").read_text() for rank in range(len(expected))]
        tasks = [dict(v.split("=", 1) for v in text.split("\0") if v) for text in told]
        taken = [own_gpus(task) for task in tasks]
        assert taken == expected, (request, taken)


def check_two_nodes(cluster: Cluster, dataset: Path) -> None:
    """multi_node.sbatch: two processes find each other, each takes all devices of its node."""
    log, workdir = cluster.folder / "two.log", cluster.folder / "two"
    arguments = [
        f"--config={ROOT}/configs/nucleus.py:pretrain,init=random",
        f"--config.data.root={dataset}",
        f"--workdir={workdir}",
        *_SHORT,
        *_key("train", num_steps=3, batch_size=4),
    ]
    job = cluster.submit([], _SCRIPTS / "multi_node.sbatch", arguments, log)
    _wait(cluster, job, log)
    text = log.read_text()
    assert "training on 4 × cpu, 2 processes of 2" in text, text
    assert (workdir / "model" / "model.json").exists(), text


def check_preemption(cluster: Cluster, dataset: Path) -> None:
    """single_node.sbatch: preempted, it saves and queues again; the model is the same, bit by bit.

    An urgent job that wants the whole node preempts it, as on a shared cluster.
    """
    logs, models = {}, {}
    for name in ("whole", "cut"):
        log, workdir = cluster.folder / f"{name}.log", cluster.folder / name
        arguments = [
            f"--config={ROOT}/configs/nucleus.py:pretrain,init=random",
            f"--config.data.root={dataset}",
            f"--workdir={workdir}",
            *_SHORT,
            *_key("train", num_steps=400, batch_size=2, log_every=1, validate_every=400),
        ]
        options = ["--nodelist=n1", "--gpus-per-node=4", "--time=60"]
        job = cluster.submit(options, _SCRIPTS / "single_node.sbatch", arguments, log)
        if name == "cut":
            _preempt(cluster, job, workdir)
        _wait(cluster, job, log)
        logs[name] = log.read_text()
        models[name] = (workdir / "model" / "weights.safetensors").read_bytes()
    assert "told to stop: saving, then back into the queue" in logs["cut"], logs["cut"]
    assert "told to stop" not in logs["whole"]
    assert models["whole"] == models["cut"], "the resumed run ended with another model"
    for workdir in (cluster.folder / name for name in logs):
        steps = [line["step"] for line in _metrics(workdir) if line["split"] == "train"]
        assert steps == list(range(1, 401)), "steps are missing or were taken twice"


def _preempt(cluster: Cluster, job: str, workdir: Path) -> None:
    deadline = time.monotonic() + _MINUTES * 60
    while not (workdir / "metrics.jsonl").exists() or len(_metrics(workdir)) < 20:
        assert time.monotonic() < deadline and cluster.field(job, "JobState") in (
            "PENDING",
            "RUNNING",
        )
        time.sleep(0.2)
    urgent = cluster.folder / "urgent.sh"
    urgent.write_text("#!/bin/bash\nsleep 1\n")
    options = ["--partition=urgent", "--nodelist=n1", "--exclusive"]
    other = cluster.submit(options, urgent, [], cluster.folder / "urgent.log")
    cluster.wait(other, "COMPLETED", seconds=_MINUTES * 60)
    assert cluster.field(job, "Restarts") == "1"
    assert not (workdir / "model").exists(), "it was over before it could be preempted"
    # SLURM lets a job that was queued again wait for two minutes.
    cluster.tell("scontrol", "update", f"JobId={job}", "StartTime=now")


def check_sweep(cluster: Cluster, dataset: Path) -> None:
    """isl-sweep queues a pretext run that fails and an array; what does not need it is scored."""
    workdir = cluster.folder / "sweep"
    command = [
        "isl-sweep",
        f"--config={ROOT}/configs/nucleus.py",
        f"--config.data.root={dataset}",
        f"--workdir={workdir}",
        "--n=1",
        "--inits=random,isl",
        "--imagenet_stand_in=random",
        *_SHORT,
        *_key("pretrain", num_steps=2, batch_size=2, learning_rate=1e38),
        *_key("train", num_steps=2, batch_size=2),
    ]
    queue = ["--executor=slurm", "--executor_options=timeout_min=60,cpus_per_task=2,mem_gb=2"]
    told = cluster.tell(*command, *queue)
    jobs = dict(line.split(": job ") for line in told.splitlines() if ": job " in line)
    assert len(jobs) == 3, told
    for number in jobs.values():
        cluster.wait(number, "COMPLETED", seconds=_MINUTES * 60)
    scored = {path.parents[1].name for path in workdir.rglob("evaluation/summary.json")}
    assert scored == {"random_n1_seed0"}, scored
    assert "FloatingPointError" in (workdir / "pretrain" / "failure.txt").read_text()
    (isl,) = workdir.glob("*/isl_n1_seed0/failure.txt")
    assert "pretrain" in isl.read_text()
    told = cluster.tell(*command, "--dry_run")
    assert "failed" in told, told


def _wait(cluster: Cluster, job: str, log: Path) -> None:
    try:
        cluster.wait(job, "COMPLETED", seconds=_MINUTES * 60)
    except RuntimeError as error:
        raise RuntimeError(f"{error}\n{log.read_text() if log.exists() else ''}") from error


def _metrics(workdir: Path) -> list[dict]:
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def main(folder: Path) -> int:
    """Run all checks in `folder`, which must be empty; returns the exit status."""
    lacks = missing()
    if lacks:
        print("the cluster test needs", *lacks, sep="\n  ", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    dataset = write_dataset(folder / "data", "nucleus").root
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".cache" / "compilation")
    with Cluster(folder) as cluster:
        check_gpus(cluster)
        for check in (check_two_nodes, check_preemption, check_sweep):
            started = time.monotonic()
            print(f"{check.__name__} …", end=" ", flush=True)
            check(cluster, dataset)
            print(f"passed, {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    given = sys.argv[1:]
    chosen = Path(given[0] if given else tempfile.mkdtemp(prefix="isl-cluster-")).absolute()
    status = main(chosen)
    if status == 0 and not given:
        shutil.rmtree(chosen)
    sys.exit(status)
