"""One run of a study, from prepared data to a model folder."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from isl_jax.data.batches import (
    Crops,
    evaluation_batches,
    resident_arrays,
    resident_bytes,
    training_batches,
    training_order,
)
from isl_jax.data.crops import FreshCrops, Rule, fixed_crops, keep_rule
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
from isl_jax.study.settings import (
    GROUPS,
    DataSettings,
    InitSettings,
    InstanceSettings,
    LossSettings,
    ModelSettings,
    ScheduleSettings,
    TargetSettings,
    parse_profile,
    with_num_steps,
)
from isl_jax.study.workdir import prepare_workdir
from isl_jax.training.augmentation import Augmentation
from isl_jax.training.loop import BatchIterator, train
from isl_jax.training.objectives import Objective
from isl_jax.training.optimizer import OptimizerSettings, parse_rates
from isl_jax.training.placement import PLACEMENTS, HostBatch, fits_on_device
from isl_jax.training.settings import TrainSettings
from isl_jax.training.trackers import check_trackers

# Annotated fields that the marker contrast is calibrated on; more change it little and cost time.
_CALIBRATION_FIELDS = 10


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
    profile: str = ""
    writers: str = ""

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "Experiment":
        """Build from nested mappings with exactly the names of the fields.

        `train.num_samples` may stand for `train.num_steps`. Raises ValueError for values that no
        run could work with.
        """
        values = dict(config)
        values["train"] = with_num_steps(values["train"])
        for name, group in GROUPS.items():
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
            "data.placement": (self.data.placement, PLACEMENTS),
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
        if self.data.fresh_crops and self.data.placement == "device":
            raise ValueError(
                "data.fresh_crops: crops that change cannot lie on the device; leave "
                "data.placement at auto or host"
            )
        parse_rates(self.train.rates)
        check_trackers(self._writers)
        parse_profile(self.profile)
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

    @property
    def _writers(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.writers.split(",") if name.strip())

    def train_settings(self, num_crops: int) -> TrainSettings:
        """Settings of the training loop, on this number of crops."""
        schedule = dataclasses.asdict(self.train)
        num_epochs = schedule.pop("num_epochs")
        if num_epochs:
            schedule["num_steps"] = math.ceil(num_epochs * num_crops / self.train.batch_size)
            # Whole calls: samples and epochs are budgets, not counts to be met to the letter.
            schedule["num_steps"] += -schedule["num_steps"] % self.train.steps_per_call
        schedule["rates"] = parse_rates(schedule["rates"])
        names = {field.name for field in dataclasses.fields(OptimizerSettings)}
        optimizer = OptimizerSettings(**{name: schedule.pop(name) for name in names})
        return TrainSettings(
            optimizer=optimizer,
            augmentation=Augmentation(self.data.flips, self.data.intensity),
            seed=self.seed % 2**32,
            profile=parse_profile(self.profile),
            writers=self._writers,
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


def _crops(
    experiment: Experiment, dataset: Dataset, fields: tuple[Field, ...], *, fresh: bool = False
) -> Crops:
    drawing: dict[str, Any] = {
        "size": experiment.data.crop_size,
        "per_image": experiment.data.crops_per_image,
        "seed": experiment.seed,
        "rule": experiment.crop_rule,
        "margin": experiment.data.margin,
    }
    if fresh:
        crops = FreshCrops(dataset, fields, **drawing)
        dropped = crops.dropped
    else:
        crops, dropped = fixed_crops(dataset, fields, **drawing)
    if dropped:
        print(f"no crop with enough signal ({experiment.crop_rule}) in: {', '.join(dropped)}")
    if fields and not len(crops):
        raise ValueError(
            f"{dataset.root}: none of {len(fields)} fields yields a {experiment.data.crop_size}² "
            f"crop with enough signal ({experiment.crop_rule}); lower data.crop_size or data.margin"
        )
    return crops


def run_experiment(experiment: Experiment, workdir: Path) -> None:
    """Train, keep the best model in `workdir/model/`, calibrate its marker contrast.

    Started again on the same workdir, it resumes from the last checkpoint. All that can be checked
    is checked before anything is written. Raises ValueError or FileNotFoundError for bad input.
    """
    dataset = open_dataset(Path(str(experiment.data.root)))
    fields = _training_fields(experiment, dataset)
    crops = _crops(experiment, dataset, fields, fresh=experiment.data.fresh_crops)
    is_pretext = experiment.stage == "pretrain"
    held_out = dataset.select("val", stain=is_pretext, labels=not is_pretext)
    validation_crops = _crops(experiment, dataset, held_out)
    objective, network = experiment.objective, experiment.network()
    variables = _initial_variables(experiment, network, len(dataset.channels))
    prepare_workdir(dataclasses.asdict(experiment), workdir)

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
        binning=dataset.binning,
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

    batches, resident = _training_data(experiment, dataset, crops, content)
    train(
        network,
        variables,
        objective,
        batches,
        settings=experiment.train_settings(len(crops)),
        workdir=workdir,
        save_model=save,
        resident=resident,
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
    if objective.target == "distance_and_semantic" and jax.process_index() == 0:
        _set_marker_contrast(experiment, dataset, fields, workdir / "model")


def _training_data(
    experiment: Experiment, dataset: Dataset, crops: Crops, content: dict[str, Any]
) -> tuple[BatchIterator, HostBatch | None]:
    """Batches; or, where the device holds all crops, the order of the crops and these."""
    order: dict[str, Any] = {
        "batch_size": experiment.train.batch_size,
        "seed": experiment.seed,
        "shard": (jax.process_index(), jax.process_count()),
    }
    if not isinstance(crops, FreshCrops) and fits_on_device(
        resident_bytes(dataset, crops, target=content["target"]),
        placement=experiment.data.placement,
        limit_bytes=experiment.data.device_mib << 20,
    ):
        return training_order(len(crops), **order), resident_arrays(dataset, crops, **content)
    workers = experiment.data.num_workers
    return training_batches(dataset, crops, num_workers=workers, **order, **content), None


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
