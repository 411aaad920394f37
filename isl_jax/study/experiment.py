"""One run of a study, from prepared data to a model folder."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from isl_jax.data.crops import Crop, Rule, fixed_crops, keep_rule
from isl_jax.data.pipeline import evaluation_batches, training_batches
from isl_jax.data.store import Dataset, Field, annotated_subset, open_dataset
from isl_jax.inference.model import (
    ModelInfo,
    NetworkInfo,
    load_model,
    save_model,
    set_h,
)
from isl_jax.instances.calibration import calibrate_h
from isl_jax.models import weights
from isl_jax.models.heads import build_network, init_variables, transfer
from isl_jax.study.environment import environment, write_json
from isl_jax.training.loop import TrainSettings, train
from isl_jax.training.objectives import Objective
from isl_jax.training.optimizer import OptimizerSettings

# Annotated fields that the marker contrast is calibrated on; more change it little and cost time.
_CALIBRATION_FIELDS = 10


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Where the prepared data are and how crops are drawn from them."""

    root: str | None
    crop_size: int
    crops_per_image: int
    margin: tuple[float, float, float, float]
    flips: bool
    num_workers: int


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """Architecture; `compute_dtype` is `float32` or `bfloat16`."""

    encoder: str
    compute_dtype: str
    head: Literal["paper", "reference"]
    slope: float


@dataclasses.dataclass(frozen=True)
class InitSettings:
    """Where the first weights come from."""

    kind: Literal["random", "imagenet", "isl"]
    checkpoint: str | None
    weights: str | None


@dataclasses.dataclass(frozen=True)
class TargetSettings:
    """Scale of the distance map, and the map units that an output of 1 stands for."""

    distance_scale: Literal["normalised", "pixels"]
    distance_unit: float


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Alpha of eq. (2): a number or `auto`, then averaged over `alpha_batches`."""

    alpha: str
    alpha_batches: int


@dataclasses.dataclass(frozen=True)
class InstanceSettings:
    """Marker contrast h in map units, or `auto`: calibrated on the training images."""

    h: str


@dataclasses.dataclass(frozen=True)
class ScheduleSettings:
    """Length, pace and optimiser of a training; see `OptimizerSettings` and `TrainSettings`."""

    batch_size: int
    num_steps: int
    learning_rate: float
    schedule: str
    warmup_steps: int
    b1: float
    b2: float
    clip_norm: float
    head_rate: float
    checkpoint_every: int
    validate_every: int
    log_every: int
    keep: str


_GROUPS: dict[str, type] = {
    "data": DataSettings,
    "model": ModelSettings,
    "init": InitSettings,
    "target": TargetSettings,
    "loss": LossSettings,
    "instances": InstanceSettings,
    "train": ScheduleSettings,
}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All settings of one run: the configuration of `configs/`, as a value."""

    study: Literal["nucleus", "cell"]
    stage: Literal["pretrain", "segment"]
    seed: int
    num_annotated: int
    data: DataSettings
    model: ModelSettings
    init: InitSettings
    target: TargetSettings
    loss: LossSettings
    instances: InstanceSettings
    train: ScheduleSettings

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "Experiment":
        """Build from nested mappings with exactly the names of the fields.

        Raises ValueError for values that no run could work with.
        """
        values = dict(config)
        for name, group in _GROUPS.items():
            settings = dict(values[name])
            if "margin" in settings:
                settings["margin"] = tuple(settings["margin"])
            values[name] = group(**settings)
        return cls(**values)

    def __post_init__(self) -> None:
        choices = {
            "study": (self.study, ("nucleus", "cell")),
            "stage": (self.stage, ("pretrain", "segment")),
            "init.kind": (self.init.kind, ("random", "imagenet", "isl")),
            "model.head": (self.model.head, ("paper", "reference")),
            "target.distance_scale": (self.target.distance_scale, ("normalised", "pixels")),
        }
        for name, (value, allowed) in choices.items():
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: choose one of {', '.join(allowed)}")
        if not self.data.root:
            raise ValueError("data.root is not set: name the folder that isl-prepare wrote")
        if self.stage == "pretrain" and self.init.kind == "isl":
            raise ValueError("init.kind=isl is for the segment stage: pretrain makes those weights")
        if self.init.kind == "isl" and not self.init.checkpoint:
            raise ValueError("init.kind=isl needs init.checkpoint, the workdir of a pretext run")
        if self.instances.h != "auto" and not _is_number(self.instances.h):
            raise ValueError(f"instances.h={self.instances.h!r} is neither a number nor auto")

    @property
    def objective(self) -> Objective:
        """What this run optimises (the four trainings of sections 2.2 and 2.3)."""
        if self.stage == "pretrain":
            return Objective("stain")
        if self.study == "cell":
            return Objective("distance_and_semantic")
        if self.init.kind == "isl":
            return Objective("semantic", activation="shifted_sigmoid", slope=self.model.slope)
        return Objective("semantic")

    @property
    def head(self) -> Literal["none", "paper", "reference"]:
        """Cell networks from ISL carry a two-convolution head; all others are plain U-Nets."""
        is_isl_cell = self.study == "cell" and self.stage == "segment" and self.init.kind == "isl"
        return self.model.head if is_isl_cell else "none"

    @property
    def crop_rule(self) -> Rule:
        """Which crops hold enough signal to be kept."""
        return keep_rule(self.objective.target, self.study)

    def network(self) -> nn.Module:
        """The Flax module of this run."""
        return build_network(
            out_channels=self.objective.num_outputs,
            head=self.head,
            encoder=self.model.encoder,
            compute_dtype=jnp.dtype(self.model.compute_dtype),
        )

    def train_settings(self) -> TrainSettings:
        """Settings of the training loop."""
        schedule = dataclasses.asdict(self.train)
        names = {field.name for field in dataclasses.fields(OptimizerSettings)}
        optimizer = OptimizerSettings(**{name: schedule.pop(name) for name in names})
        return TrainSettings(
            optimizer=optimizer,
            alpha=self.loss.alpha,
            alpha_batches=self.loss.alpha_batches,
            **schedule,
        )


def _initial_variables(experiment: Experiment, network: nn.Module, in_channels: int) -> Any:
    variables = init_variables(network, in_channels=in_channels, seed=experiment.seed)
    if experiment.init.kind == "random":
        return variables
    if experiment.init.kind == "imagenet":
        source = weights.imagenet_variables(
            experiment.init.weights, in_channels=in_channels, encoder=experiment.model.encoder
        )
    else:
        pretext = load_model(str(experiment.init.checkpoint))
        if pretext.info.objective.target != "stain":
            raise ValueError(
                f"{experiment.init.checkpoint}: trained on {pretext.info.objective.target}, "
                "init.checkpoint wants the workdir of a pretext run (stage pretrain)"
            )
        source = pretext.variables
    variables, report = transfer(source, variables)
    print(report)
    return variables


def _training_fields(experiment: Experiment, dataset: Dataset) -> tuple[Field, ...]:
    if experiment.stage == "pretrain":
        fields = dataset.select("train", stain=True)
        if not fields:
            raise ValueError(f"{dataset.root}: no training field has a stain to learn to predict")
        return fields
    return annotated_subset(dataset, experiment.num_annotated, experiment.seed)


def _crops(experiment: Experiment, dataset: Dataset, fields: tuple[Field, ...]) -> tuple[Crop, ...]:
    crops, dropped = fixed_crops(
        dataset,
        fields,
        size=experiment.data.crop_size,
        per_image=experiment.data.crops_per_image,
        seed=experiment.seed,
        rule=experiment.crop_rule,
        margin=experiment.data.margin,
    )
    if dropped:
        print(f"no crop with enough signal ({experiment.crop_rule}) in: {', '.join(dropped)}")
    if fields and not crops:
        raise ValueError(
            f"{dataset.root}: none of {len(fields)} fields yields a {experiment.data.crop_size}² "
            f"crop with enough signal ({experiment.crop_rule}); lower data.crop_size or data.margin"
        )
    return crops


def _prepare_workdir(experiment: Experiment, workdir: Path) -> None:
    """Record the configuration; refuse a workdir that holds a run with another one."""
    config = dataclasses.asdict(experiment)
    path = workdir / "config.json"
    if path.exists():
        stored = json.loads(path.read_text())
        changed = sorted(_changes(stored, json.loads(json.dumps(config))))
        if changed:
            raise ValueError(
                f"{path}: this workdir holds a run with other settings ({'; '.join(changed)}): "
                "use another --workdir, or repeat the settings to resume"
            )
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(path, config)
    write_json(workdir / "environment.json", environment())


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    changes = []
    for name in old.keys() | new.keys():
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            changes += _changes(before, after, f"{prefix}{name}.")
        elif before != after:
            changes.append(f"{prefix}{name} was {before!r}, now {after!r}")
    return changes


def run_experiment(experiment: Experiment, workdir: Path) -> None:
    """Train, keep the best model in `workdir/model/`, calibrate its marker contrast.

    Started again on the same workdir, it resumes from the last checkpoint. All that can be checked
    is checked before anything is written. Raises ValueError or FileNotFoundError for bad input.
    """
    dataset = open_dataset(Path(str(experiment.data.root)))
    fields = _training_fields(experiment, dataset)
    crops = _crops(experiment, dataset, fields)
    is_pretext = experiment.stage == "pretrain"
    held_out = dataset.select("val", stain=is_pretext, labels=not is_pretext)
    validation_crops = _crops(experiment, dataset, held_out)
    objective, network = experiment.objective, experiment.network()
    variables = _initial_variables(experiment, network, len(dataset.channels))
    _prepare_workdir(experiment, workdir)

    content: dict[str, Any] = {"target": objective.target, **dataclasses.asdict(experiment.target)}
    batch_size = experiment.train.batch_size
    info = ModelInfo(
        study=experiment.study,
        stage=experiment.stage,
        network=NetworkInfo(
            encoder=experiment.model.encoder,
            head=experiment.head,
            out_channels=objective.num_outputs,
            in_channels=len(dataset.channels),
        ),
        objective=objective,
        channels=dataset.channels,
        stain=dataset.stain if is_pretext else None,
        stain_scale=dataset.stain_scale if is_pretext else None,
        **dataclasses.asdict(experiment.target),
    )

    def save(kept: dict[str, Any], summary: dict[str, Any]) -> None:
        training = {
            **summary,
            "init": experiment.init.kind,
            "num_annotated": experiment.num_annotated,
            "fields": [field.name for field in fields],
        }
        save_model(workdir / "model", dataclasses.replace(info, training=training), kept)

    train(
        network,
        variables,
        objective,
        training_batches(
            dataset,
            crops,
            batch_size=batch_size,
            seed=experiment.seed,
            flips=experiment.data.flips,
            num_workers=experiment.data.num_workers,
            shard=(jax.process_index(), jax.process_count()),
            **content,
        ),
        settings=experiment.train_settings(),
        workdir=workdir,
        save_model=save,
        validation=(
            (
                lambda: evaluation_batches(
                    dataset, validation_crops, batch_size=batch_size, **content
                )
            )
            if validation_crops
            else None
        ),
        description=workdir.name,
    )
    if objective.target == "distance_and_semantic":
        _set_marker_contrast(experiment, dataset, fields, workdir / "model")


def _set_marker_contrast(
    experiment: Experiment, dataset: Dataset, fields: tuple[Field, ...], folder: Path
) -> None:
    if experiment.instances.h != "auto":
        set_h(folder, float(experiment.instances.h))
        return
    model = load_model(folder)
    chosen = fields[:_CALIBRATION_FIELDS]
    distances, semantics = [], []
    for field in chosen:
        image = dataset.standardised(field.name)[None]
        prediction = model.predict_standardised(image, labels=False)[0]
        assert prediction.distance is not None and prediction.probability is not None
        distances.append(prediction.distance)
        semantics.append(prediction.probability > 0.5)
    h = calibrate_h(distances, semantics, [dataset.labels(field.name) for field in chosen])
    print(f"marker contrast h = {h:g}, calibrated on {len(chosen)} annotated training image(s)")
    set_h(folder, h)
