"""Trains a network of a few parameters in one of several processes, as a program.

    python several_processes.py FOLDER PLACEMENT COORDINATOR NUM_PROCESSES PROCESS_ID

Writes the variables after each validation to FOLDER/kept_<step>.npz, in the first process.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from interrupted_training import BATCH, CROPS, Batches, SmallNetwork, all_crops

from isl_jax.task import Kind, Task
from isl_jax.training.augmentation import Augmentation
from isl_jax.training.devices import TrainingData
from isl_jax.training.loop import train
from isl_jax.training.settings import RunSettings, TrainSettings


class Share(Batches):
    """This process's part of each batch."""

    def __next__(self):
        part = BATCH // jax.process_count()
        here = slice(jax.process_index() * part, (jax.process_index() + 1) * part)
        return {name: array[here] for name, array in super().__next__().items()}


def main(folder, placement):
    crops, network = all_crops(), SmallNetwork()
    variables = jax.tree.map(np.asarray, network.init(jax.random.key(0), crops["image"][:1]))
    on_device = placement == "device"

    def save(kept, summary):
        leaves = jax.tree.leaves_with_path(kept)
        arrays = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        np.savez(folder / f"kept_{summary['step']}.npz", **arrays)

    train(
        network,
        variables,
        Task(Kind.STAIN),
        TrainingData(
            Share(crops, order_only=on_device),
            resident=crops if on_device else None,
            # Five crops: they do not divide over two devices.
            validation=lambda: iter([{name: a[: CROPS // 2 - 1] for name, a in crops.items()}]),
        ),
        TrainSettings(BATCH, 1e-2, num_steps=10, validate_every=5, checkpoint_every=5, log_every=1),
        RunSettings(augmentation=Augmentation(flips=True)),
        workdir=folder,
        save_model=save,
    )


if __name__ == "__main__":
    coordinator, num_processes, process_id = sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    if num_processes > 1:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    main(Path(sys.argv[1]), sys.argv[2])
