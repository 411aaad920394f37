"""Trains a network of a few parameters, interrupted at random moments, as a program.

    python interrupted_training.py FOLDER PLACEMENT KILLS TERMS SEED

Trains once undisturbed in FOLDER/whole, and in FOLDER/cut with KILLS SIGKILLs and TERMS SIGTERMs at
random moments; prints what happened as JSON. Each run writes all arrays of its last checkpoint to
final.npz. Runs are forks of this process, which imports everything once and never starts a backend.
"""

import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from isl_jax.task import Kind, Task
from isl_jax.training.augmentation import Augmentation
from isl_jax.training.checkpoint import Checkpoints
from isl_jax.training.devices import TrainingData, data_mesh
from isl_jax.training.loop import train
from isl_jax.training.losses import loss_parameters
from isl_jax.training.settings import RunSettings, TrainSettings
from isl_jax.training.step import create_state
from isl_jax.training.stopping import InterruptedTrainingError

SIZE, BATCH, CROPS, STEPS = 8, 4, 12, 60


class SmallNetwork(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Conv(1, (1, 1))(x)


def all_crops():
    rng = np.random.default_rng(0)
    crops = {"image": rng.normal(size=(CROPS, SIZE, SIZE, 3)).astype(np.float32)}
    crops["target"] = (crops["image"][..., :1] > 0).astype(np.float32)
    return crops | {"weight": np.ones((CROPS, SIZE, SIZE, 1), np.float32)}


class Batches:
    """Batches, or with `order_only` the indices of their crops, as a function of their number."""

    def __init__(self, crops, *, order_only):
        self.number, self.crops, self.order_only = 0, crops, order_only

    def __next__(self):
        time.sleep(0.01)  # a step takes long enough to be hit
        index = np.random.default_rng(self.number).choice(CROPS, BATCH).astype(np.int32)
        self.number += 1
        if self.order_only:
            return {"index": index}
        return {name: array[index] for name, array in self.crops.items()}

    def get_state(self):
        return {"number": self.number}

    def set_state(self, state):
        self.number = state["number"]


def run(workdir, placement):
    workdir.mkdir(parents=True, exist_ok=True)
    network, crops, task = SmallNetwork(), all_crops(), Task(Kind.STAIN)
    settings = TrainSettings(
        BATCH,
        learning_rate=1e-2,
        num_steps=STEPS,
        schedule="cosine",
        warmup_steps=5,
        checkpoint_every=5,
        validate_every=10,
        log_every=1,
    )
    on_device = placement == "device"
    variables = network.init(jax.random.key(0), crops["image"][:1])
    variables = jax.tree.map(np.asarray, variables)
    train(
        network,
        variables,
        task,
        TrainingData(
            Batches(crops, order_only=on_device),
            resident=crops if on_device else None,
            validation=lambda: iter([{name: array[:BATCH] for name, array in crops.items()}]),
        ),
        settings,
        RunSettings(augmentation=Augmentation(flips=True, intensity=0.1)),
        workdir=workdir,
        save_model=lambda kept, summary: None,
    )
    like = create_state(variables, settings, data_mesh(), loss_parameters(task))
    with Checkpoints(workdir) as checkpoints:
        state, position = checkpoints.restore(like)
    leaves = {jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree.leaves_with_path(state)}
    np.savez(workdir / "final.npz", position=json.dumps(position), **leaves)


def fork(workdir, placement):
    """Start a run in a process of its own; returns its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forking is safe before jax has started a backend
        process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        run(workdir, placement)
        status = 0
    except InterruptedTrainingError:
        status = 143
    finally:
        os._exit(status)


def wait(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def is_running(process):
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def latest_step(workdir):
    """Step of the last whole line of metrics.jsonl; 0 without one."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines()[:-1] if path.exists() else []
    return max((json.loads(line)["step"] for line in lines), default=0)


def main(folder, placement, kills, terms, seed):
    rng = random.Random(seed)
    if wait(fork(folder / "whole", placement)):
        sys.exit("the undisturbed run failed")
    signals = [signal.SIGKILL] * kills + [signal.SIGTERM] * terms
    rng.shuffle(signals)
    cut, ends, steps = folder / "cut", [], []
    while signals:
        # A moment that no part of a run is safe from: some steps on, and then a while.
        target = latest_step(cut) + rng.randint(0, 8)
        process = fork(cut, placement)
        while latest_step(cut) < target and is_running(process):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        os.kill(process, signals[-1])
        ends.append(wait(process))
        steps.append(latest_step(cut))
        if ends[-1] == 0:  # finished before the signal came: begin again
            cut.rename(folder / f"finished_{len(ends)}")
        else:
            signals.pop()
    ends.append(wait(fork(cut, placement)))
    print(json.dumps({"ends": ends, "steps": steps}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]))
