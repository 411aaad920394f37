"""Small data sets and sweeps made by code, scored by the real evaluation with fake models.

The fake network "sees" the truth through noise: less of it the more was annotated, and less with
ISL. Nothing here tells how well the method works.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from isl_jax.data.crops import CropPlan
from isl_jax.data.description import DESCRIPTION, SCHEMA
from isl_jax.data.normalisation import PAPER
from isl_jax.data.store import (
    FIELDS_DIR,
    INPUTS,
    LABELS,
    STAIN,
    Dataset,
    open_dataset,
)
from isl_jax.inference.info import PostProcessing
from isl_jax.inference.model import Prediction
from isl_jax.study import evaluate
from isl_jax.study.records import run_name
from isl_jax.study.settings import Experiment
from isl_jax.task import Kind, Task, kind_of_study

CHANNELS = ("bf0", "bf1", "pc")


def touching_cells(
    rng: np.random.Generator, height: int, width: int, *, radius: float, density: float
) -> np.ndarray:
    """Voronoi cells cut off at a radius: int32 labels with touching neighbours."""
    count = max(2, int(density * height * width / (np.pi * radius**2)))
    centres = rng.uniform(0, 1, size=(count, 2)) * (height, width)
    grid = np.stack(np.mgrid[:height, :width], axis=-1)[:, :, None]
    distance = np.linalg.norm(grid - centres, axis=-1)
    labels = distance.argmin(-1) + 1
    labels[distance.min(-1) > radius * rng.uniform(0.6, 1.1, size=count)[labels - 1]] = 0
    return labels.astype(np.int32)


def write_dataset(root: Path, study: str, *, fields: int = 6, size=(96, 112)) -> Dataset:
    """Write a prepared data set whose first channel shows the cells."""
    rng = np.random.default_rng(7)
    entries = []
    for index in range(fields):
        name = f"well{index} s1"
        folder = root / FIELDS_DIR / name
        folder.mkdir(parents=True)
        # Nuclei leave room between them, cells cover most of the field.
        density = 0.35 if study == "nucleus" else 1.1
        labels = touching_cells(rng, *size, radius=min(size) / 8, density=density)
        depth = ndimage.distance_transform_edt(labels > 0)
        seen = ndimage.gaussian_filter(np.sqrt(depth), 1) + rng.normal(0, 0.1, size=size)
        planes = [seen, np.gradient(seen)[0], np.gradient(seen)[1]]
        inputs = np.stack([(1000 + 200 * plane) for plane in planes], -1).astype(np.uint16)
        stain = (200 + 900 * ndimage.gaussian_filter((labels > 0) * 1.0, 2)).astype(np.uint16)
        for file, array in ((INPUTS, inputs), (STAIN, stain), (LABELS, labels)):
            np.save(folder / file, array)
        entries.append(
            {
                "name": name,
                "group": f"well{index}",
                "split": "test" if index >= 2 else "train",
                "height": size[0],
                "width": size[1],
                "has_stain": True,
                "has_labels": True,
                "input_mean": inputs.mean((0, 1)).tolist(),
                "input_std": inputs.std((0, 1)).tolist(),
            }
        )
    record = {
        "schema": SCHEMA,
        "study": study,
        "channels": CHANNELS,
        "stain": "DAPI",
        "stain_scale": {"low": 200.0, "high": 1100.0},
        "pixel_size": 0.3,
        "fields": entries,
    }
    (root / DESCRIPTION).write_text(json.dumps(record))
    return open_dataset(root)


def experiment(dataset, study="cell", stage="segment", **changes) -> Experiment:
    """Settings of a short run on `dataset`; `changes` replace whole groups."""
    values = {
        "study": study,
        "stage": stage,
        "seed": 0,
        "num_annotated": 1,
        "data": {
            "root": str(dataset.root),
            "crop_size": 64,
            "crops_per_image": 2,
            "margin": [0, 0, 0, 0],
            "flips": False,
            "num_workers": 0,
        },
        "model": {
            "encoder": "densenet121",
            "compute_dtype": "float32",
            "head": "paper",
            "slope": 1.0,
        },
        "init": {"kind": "random", "checkpoint": None, "weights": None},
        "target": {
            "distance_scale": "normalised",
            "distance_unit": 255.0,
            "distance_peaks": "single",
        },
        "loss": {"alpha": "auto", "alpha_batches": 2},
        "instances": {"h": "auto"},
        "train": {
            "batch_size": 4,
            "num_steps": 6,
            "learning_rate": 1e-2,
            "schedule": "cosine",
            "warmup_steps": 2,
            "b1": 0.9,
            "b2": 0.999,
            "clip_norm": 0.0,
            "head_rate": 10.0,
            "checkpoint_every": 4,
            "validate_every": 3,
            "log_every": 2,
            "keep": "last",
        },
    }
    return Experiment.from_mapping(values | changes)


def pair(dataset, study="cell") -> tuple[Experiment, Experiment]:
    """Settings of a pretext run and of a segmentation run."""
    return experiment(dataset, study, "pretrain"), experiment(dataset, study)


@dataclasses.dataclass
class FakeModel:
    """Thresholds its first channel through noise of a given strength."""

    kind: str
    noise: float = 0.0
    channels: tuple[str, ...] = CHANNELS
    h: float | None = 10.0

    @property
    def info(self) -> SimpleNamespace:
        return SimpleNamespace(
            task=Task(Kind(self.kind)),
            channels=self.channels,
            normalisation=PAPER,
            stain_scale=None,
            tta=1,
            postprocessing=PostProcessing(h=self.h),
        )

    def predict_standardised(self, images: np.ndarray) -> list[Prediction]:
        return [self._predict(image[..., 0]) for image in images]

    def _predict(self, plane: np.ndarray) -> Prediction:
        rng = np.random.default_rng(int(1e4 * self.noise))
        fog = ndimage.gaussian_filter(rng.normal(size=plane.shape), 4) * 8 * self.noise
        seen = (plane + fog).astype(np.float32)
        if self.kind == "stain":
            return Prediction(stain=seen)
        probability = 1 / (1 + np.exp(-4 * (seen + 0.3))).astype(np.float32)
        threshold = 0.5 if self.kind == "semantic" else 0.9
        labels = ndimage.label(probability > threshold)[0].astype(np.int32)
        return Prediction(probability=probability, distance=seen, labels=labels)


@pytest.fixture
def make_dataset() -> Callable[..., Dataset]:
    """`make_dataset(root, study)`: a prepared data set, two training and four test fields."""
    return write_dataset


@pytest.fixture
def fake_model() -> type[FakeModel]:
    """The model that stands in for a trained network."""
    return FakeModel


@pytest.fixture
def make_sweep(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a sweep folder as isl-sweep leaves it; `holes` are runs that have no scores."""

    def make(
        workdir: Path,
        dataset: Dataset,
        *,
        n=(1,),
        inits=("random", "isl"),
        arms=None,
        seeds=(0, 1),
        holes: dict[str, str] | None = None,
        noise: dict[str, float] | None = None,
        crop_size: int = 48,
        stand_in: dict | None = None,
    ) -> Path:
        noise = noise or {"random": 1.0, "random-head": 0.6, "imagenet": 0.8, "isl": 0.4}
        workdir.mkdir(parents=True)
        # Before there were controls, sweeps named no arms.
        sweep = {"study": dataset.study, "n": n, "inits": inits, "seeds": seeds}
        sweep |= {"arms": arms, "head": "paper"} if arms else {}
        sweep |= {"data_root": str(dataset.root), "imagenet_stand_in": stand_in}
        (workdir / "sweep.json").write_text(json.dumps(sweep))

        def score(folder: Path, model: FakeModel, config: dict) -> None:
            (folder / "model").mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps(config))
            (folder / "environment.json").write_text(json.dumps({"python": "3.11"}))
            described = {"h": model.h, "training": {"step": 200, "fields": ["well0 s1"]}}
            (folder / "model" / "model.json").write_text(json.dumps(described))
            monkeypatch.setattr(evaluate, "load_model", lambda *_, **__: model)
            evaluate.evaluate_run(folder, dataset, CropPlan(crop_size, 3))

        kind = kind_of_study(dataset.study)
        if "isl" in inits:
            score(workdir / "pretrain", FakeModel("stain", 0.1), {"stage": "pretrain"})
        for arm, number, seed in ((a, m, s) for a in arms or inits for m in n for s in seeds):
            name = run_name(arm, number, seed)
            folder = workdir / "runs" / name
            hole = (holes or {}).get(name)
            if hole == "missing":
                continue
            if hole is not None:
                folder.mkdir(parents=True)
                if hole != "unfinished":
                    (folder / "failure.txt").write_text(f"Traceback\nValueError: {hole}\n")
                continue
            model = FakeModel(kind, noise[arm] / number**0.5 + 0.01 * seed)
            init = {"kind": arm.removesuffix("-head"), "checkpoint": None}
            config = {"stage": "segment", "seed": seed, "init": init}
            score(folder, model, config)
        return workdir

    return make
