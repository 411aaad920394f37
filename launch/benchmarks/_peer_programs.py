"""Trains StarDist or Cellpose on plain files and segments others, where these are installed.

    python _peer_programs.py FOLDER

FOLDER holds task.json and data/<field>.npz (image float32 [C, H, W], of the annotated ones labels
int32 [H, W]); this adds masks/<field>.tif and, last, figures.json. It imports nothing of isl_jax,
whose packages these programs do not stand beside. Their own augmentation, loss, schedule and
post-processing; what is chosen here is said in docs/benchmark.md.
"""

import importlib.metadata
import json
import math
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

Figures = dict[str, Any]
# What the programs train for when nobody says otherwise: crops, and the side of one.
_OWN_CROPS = {"stardist": 400 * 100 * 4, "cellpose": 2000 * 8, "cyto3": 500 * 8, "cpsam": 100 * 8}
_OWN_SIZE = {"stardist": 256, "cellpose": 224, "cyto3": 224, "cpsam": 256}
# The first weights of Cellpose that it downloads by itself; `cellpose` begins with random ones.
_PRETRAINED = {"cellpose": None, "cyto3": "cyto3", "cpsam": "cpsam_v2"}


class StarDist:
    """StarDist 2D: star-convex polygons, 32 rays on a grid of 2, as in its example."""

    def __init__(self, task: dict[str, Any], channels: int) -> None:
        from stardist.models import Config2D, StarDist2D

        self.config = Config2D(
            n_rays=32,
            grid=(2, 2),
            n_channel_in=channels,
            train_patch_size=(task["crop_size"],) * 2,
            train_batch_size=4,
            train_tensorboard=False,
        )
        self.model = StarDist2D(self.config, name="stardist", basedir=str(task["folder"]))
        self.task = task

    def train(self, images: list[np.ndarray], labels: list[np.ndarray]) -> Figures:
        """Train, then choose both thresholds on the annotated images, as it advises."""
        from stardist import fill_label_holes

        rng = np.random.default_rng(self.task["seed"])

        def augmented(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Flips, quarter turns, gain 0.6 to 2 and offset ± 0.2, as in its example."""
            turns, flip = int(rng.integers(4)), rng.random() < 0.5
            x, y = np.rot90(x, turns), np.rot90(y, turns)
            x, y = (x[::-1], y[::-1]) if flip else (x, y)
            return x * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2), y

        planes = [_for_stardist(image) for image in images]
        truth = [fill_label_holes(label) for label in labels]
        steps = max(1, math.ceil(self.task["num_crops"] / 4))
        epochs = math.ceil(steps / 100)
        self.model.train(
            planes,
            truth,
            validation_data=(planes, truth),
            augmenter=augmented,
            seed=self.task["seed"],
            epochs=epochs,
            steps_per_epoch=math.ceil(steps / epochs),
        )
        chosen = self.model.optimize_thresholds(planes, truth)
        crops = 4 * epochs * math.ceil(steps / epochs)
        return {"crops_seen": crops, "thresholds": {k: float(v) for k, v in chosen.items()}}

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Labels of one image."""
        return self.model.predict_instances(_for_stardist(image))[0]


def _for_stardist(image: np.ndarray) -> np.ndarray:
    from csbdeep.utils import normalize

    planes = np.moveaxis(image, 0, -1)
    planes = planes[..., 0] if len(image) == 1 else planes
    return normalize(planes, 1, 99.8, axis=(0, 1)).astype(np.float32)


class Cellpose:
    """Cellpose: the network of 3.x from random weights or `cyto3`, or Cellpose-SAM (4.x)."""

    def __init__(self, task: dict[str, Any], channels: int) -> None:
        import torch
        from cellpose import models

        if channels > 2:
            raise ValueError(f"Cellpose takes 1 or 2 planes, there are {channels}: choose --planes")
        torch.manual_seed(task["seed"])
        gpu = torch.cuda.is_available()
        weights = _PRETRAINED[task["program"]]
        self.is_new = int(importlib.metadata.version("cellpose").split(".")[0]) >= 4
        if self.is_new != (task["program"] == "cpsam"):
            wanted = "cellpose>=4" if task["program"] == "cpsam" else "cellpose>=3.1,<4"
            raise ValueError(f"{task['program']} needs {wanted}: another --python may have it")
        self.model: Any = models.CellposeModel(gpu=gpu, pretrained_model=weights)
        # 3.x is told which plane is which; 4.x takes them as they come.
        self.planes = {"channels": [0, 0] if channels == 1 else [1, 2]} if not self.is_new else {}
        self.task = task

    def train(self, images: list[np.ndarray], labels: list[np.ndarray]) -> Figures:
        """Train on at least 8 crops an epoch, as it advises for few images."""
        from cellpose import train

        per_epoch = max(8, len(images))
        epochs = max(1, math.ceil(self.task["num_crops"] / per_epoch))
        scaled = {} if self.is_new else {"rescale": True}
        train.train_seg(
            self.model.net,
            train_data=[_for_cellpose(image) for image in images],
            train_labels=[label.astype(np.int32) for label in labels],
            nimg_per_epoch=per_epoch,
            n_epochs=epochs,
            bsize=self.task["crop_size"],
            save_path=self.task["folder"],
            **scaled,
            **self.planes,
        )
        return {"crops_seen": epochs * per_epoch}

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Labels of one image."""
        return self.model.eval(_for_cellpose(image), **self.planes)[0]


def _for_cellpose(image: np.ndarray) -> np.ndarray:
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)


def run(folder: Path) -> None:
    """Do what folder/task.json asks for."""
    task = json.loads((folder / "task.json").read_text())
    program = task["program"]
    task["num_crops"] = task["num_crops"] or _OWN_CROPS[program]
    task["crop_size"] = task["crop_size"] or _OWN_SIZE[program]
    task["folder"] = folder
    read = {name: np.load(folder / "data" / f"{name}.npz") for name in task["train"] + task["test"]}
    np.random.seed(task["seed"])  # both draw their crops from it
    kind = StarDist if program == "stardist" else Cellpose
    model = kind(task, len(read[task["test"][0]]["image"]))
    annotated = [read[name] for name in task["train"]]
    started = time.perf_counter()
    figures: Figures = {"crops_seen": 0}
    if annotated:
        figures = model.train([a["image"] for a in annotated], [a["labels"] for a in annotated])
    trained = time.perf_counter()
    _write_masks(folder, {name: model.predict(read[name]["image"]) for name in task["test"]})
    figures |= {
        "crop_size": task["crop_size"],
        "train_seconds": trained - started,
        "seconds_a_field": (time.perf_counter() - trained) / len(task["test"]),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "cpus": len(os.sched_getaffinity(0)),
        "versions": _versions(),
    }
    (folder / "figures.json").write_text(json.dumps(figures, indent=2))


def _write_masks(folder: Path, masks: dict[str, np.ndarray]) -> None:
    import tifffile

    (folder / "masks").mkdir(exist_ok=True)
    for name, labels in masks.items():
        tifffile.imwrite(folder / "masks" / f"{name}.tif", labels.astype(np.int32))


def _versions() -> dict[str, str]:
    found = {}
    for name in ("stardist", "tensorflow", "cellpose", "torch", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    run(Path(sys.argv[1]))
