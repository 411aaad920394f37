"""A SLURM cluster of two nodes on this machine: daemons in a folder of its own, ended with it.

Both nodes have four GPUs, which are as empty as /dev/null. Needs Debian's slurm-wlm and munge, and
root, as slurmd does.
"""

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
# Two names of this machine, which every process of a job can look up.
NODES = ("n1", "n2")
_SECONDS_TO_START = 60

_CONFIG = """
ClusterName=one
SlurmctldHost={host}
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
GresTypes=gpu
NodeName={first} NodeHostname={first} NodeAddr=127.0.0.1 Port={port_of_first} {size}
NodeName={second} NodeHostname={second} NodeAddr=127.0.0.1 Port={port_of_second} {size}
PartitionName=all Nodes=ALL Default=YES PriorityTier=1 GraceTime=120 MaxTime=INFINITE
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF MaxTime=INFINITE
"""
_SIZE = "CPUs=32 RealMemory=130000 Gres=gpu:4 State=UNKNOWN"


def missing() -> list[str]:
    """What the cluster needs and this machine lacks, a line each."""
    found = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    lacks = [name for name in _PROGRAMS if shutil.which(name, path=found) is None]
    lines = [f"{', '.join(lacks)}: apt-get install slurm-wlm munge"] if lacks else []
    if os.geteuid() != 0:
        lines.append("root, which slurmd needs to start jobs")
    for name in NODES:
        try:
            socket.gethostbyname(name)
        except OSError:
            lines.append(f"an address of {name}: add '127.0.0.1 {name}' to /etc/hosts")
    return lines


class Cluster:
    """The daemons, as a context manager; what was told about jobs is left in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: list[subprocess.Popen] = []
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        self.environment = os.environ | {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": path}

    def __enter__(self) -> "Cluster":
        folder = self.folder
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir()
        for index in range(4):
            # SLURM wants devices; these are as empty as /dev/null.
            os.mknod(folder / f"gpu{index}", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        gpus = f"AutoDetect=off\nName=gpu File={folder}/gpu[0-3] Flags=nvidia_gpu_env\n"
        (folder / "gres.conf").write_text(gpus)
        ports = _free_ports(3)
        text = _CONFIG.format(
            folder=folder,
            host=socket.gethostname(),
            first=NODES[0],
            second=NODES[1],
            port=ports[0],
            port_of_first=ports[1],
            port_of_second=ports[2],
            size=_SIZE,
        )
        (folder / "slurm.conf").write_text(text)
        try:
            self._start_munge()
            self._start("slurmctld", "-D")
            for node in NODES:
                self._start("slurmd", "-D", "-N", node)
            self._wait_for_nodes()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if len(self._daemons) > 1:
            self.tell("scancel", "--user=root", check=False)
            deadline = time.monotonic() + 30
            while self.tell("squeue", "--noheader", check=False) and time.monotonic() < deadline:
                time.sleep(0.5)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons = []

    def tell(self, *command: str, check: bool = True, more: Mapping[str, str] | None = None) -> str:
        """What a command of SLURM answers."""
        done = subprocess.run(
            command, env=self.environment | (more or {}), capture_output=True, text=True
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout}")
        return done.stdout.strip()

    def submit(
        self, options: Sequence[str], script: Path, arguments: Sequence[str], log: Path
    ) -> str:
        """Queue a job script; returns the job's number."""
        told = [f"--output={log}", f"--chdir={self.folder}", *options, str(script), *arguments]
        return self.tell("sbatch", "--parsable", *told)

    def field(self, job: str, name: str) -> str:
        """One field of a job, as `scontrol show job` calls it."""
        told = self.tell("scontrol", "show", "job", "--oneliner", job).split()
        return dict(word.partition("=")[::2] for word in told)[name]

    def wait(self, job: str, *states: str, seconds: float) -> str:
        """Wait until a job is in one of the states; RuntimeError if it takes too long."""
        deadline = time.monotonic() + seconds
        while (state := self.field(job, "JobState")) not in states:
            if time.monotonic() > deadline or state in ("FAILED", "NODE_FAIL", "TIMEOUT"):
                raise RuntimeError(f"job {job} is {state}, not {' or '.join(states)}")
            time.sleep(1)
        return state

    def _start(self, *command: str) -> None:
        name = f"{command[0]}{len(self._daemons)}"
        with (self.folder / f"{name}.out").open("w") as out:
            daemon = subprocess.Popen(
                command, env=self.environment, stdout=out, stderr=subprocess.STDOUT
            )
        self._daemons.append(daemon)

    def _start_munge(self) -> None:
        folder = self.folder
        self.tell("mungekey", "--create", f"--keyfile={folder}/munge.key")
        files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid"}
        files |= {"log-file": "munged.log", "seed-file": "munged.seed"}
        told = [f"--{option}={folder}/{name}" for option, name in files.items()]
        self._start("munged", "--foreground", "--force", *told)
        deadline = time.monotonic() + _SECONDS_TO_START
        while not (folder / "munge.socket").exists():
            self._check(deadline)

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + _SECONDS_TO_START
        while True:
            self._check(deadline)
            told = self.tell("sinfo", "--noheader", "--Node", "--format=%N %t", check=False)
            states = dict(line.split() for line in told.splitlines())
            if states.keys() == set(NODES) and set(states.values()) == {"idle"}:
                return

    def _check(self, deadline: float) -> None:
        time.sleep(0.2)
        dead = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
        if dead or time.monotonic() > deadline:
            raise RuntimeError(f"the cluster does not start ({dead or 'no answer'}): {self.folder}")


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
