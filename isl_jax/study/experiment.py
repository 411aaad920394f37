"""One run of a study, from prepared data to a model folder."""

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from isl_jax.data.batches import (
    Crops,
    CropSource,
    evaluation_batches,
    resident_arrays,
    resident_bytes,
    training_batches,
    training_order,
)
from isl_jax.data.crops import FreshCrops, fixed_crops
from isl_jax.data.store import Dataset, Field, open_dataset
from isl_jax.files import read_json
from isl_jax.inference.info import ModelInfo, NetworkInfo
from isl_jax.inference.model import Model, save_model, set_postprocessing
from isl_jax.models import imagenet
from isl_jax.models.heads import build_network
from isl_jax.models.variables import init_variables, transfer
from isl_jax.study.annotated import SUGGESTION, annotated_fields, write_suggestion
from isl_jax.study.postprocessing import calibrated
from isl_jax.study.settings import Experiment
from isl_jax.study.travel import pretext_variables
from isl_jax.study.workdir import CONFIG, prepare_workdir
from isl_jax.training.alpha import measured_alpha
from isl_jax.training.checkpoint import latest_step, stored_variables
from isl_jax.training.devices import fits_on_device, loading_threads
from isl_jax.training.loop import TrainingData, check_training, train


def run_experiment(
    experiment: Experiment,
    workdir: Path,
    *,
    alpha: float | None = None,
    suggestion: Path | None = None,
) -> None:
    """Train, keep the best model in `workdir/model/`, calibrate how its maps are read.

    Started again on the same workdir, it resumes from the last checkpoint. All that can be checked
    is checked before anything is written. `alpha` is what `loss.alpha=auto` stands for, where it is
    known already, `suggestion` the record of the suggested order that several runs share. Raises
    ValueError or FileNotFoundError for bad input.
    """
    suggestion = suggestion or workdir / SUGGESTION
    dataset, fields, order, source = _training_crops(experiment, suggestion)
    held_out = _crop_source(experiment, dataset, _validation_fields(experiment, dataset))
    settings = experiment.train.with_length(len(source.crops))
    network = _network(experiment)
    variables = _first_variables(
        experiment, network, dataset, resumes=latest_step(workdir) is not None
    )
    check_training(settings, variables)
    prepare_workdir(experiment.to_json(), workdir)
    if jax.process_index() == 0:
        write_suggestion(order, suggestion, workdir / SUGGESTION)

    run = experiment.run_settings
    if alpha is not None and run.loss.alpha == "auto":
        run = dataclasses.replace(run, loss=dataclasses.replace(run.loss, alpha=alpha))
    info = _model_info(experiment, dataset)

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
        experiment.task,
        _training_data(experiment, source, held_out),
        settings,
        run,
        workdir=workdir,
        save_model=save,
    )
    if not experiment.is_pretext and jax.process_index() == 0:
        options = calibrated(experiment.instances, workdir, dataset, fields)
        set_postprocessing(workdir / "model", options)


def unfinished_model(workdir: Path) -> tuple[int, Model, Dataset]:
    """The model of a run as it is in the newest checkpoint, the step of that, and its data set.

    How its maps are read is not calibrated yet. Raises FileNotFoundError or ValueError for a run
    that has no checkpoint, and for a damaged one.
    """
    step, variables = stored_variables(workdir)
    config = read_json(workdir / CONFIG, remedy="use another --workdir", keys={"data": dict})
    experiment = Experiment.from_mapping(config)
    dataset = open_dataset(experiment.data.root)
    return step, Model(_model_info(experiment, dataset), variables), dataset


def initial_alpha(experiment: Experiment, suggestion: Path) -> float:
    """What `loss.alpha=auto` of this run would begin with, measured on its first batches.

    `suggestion`: as of `run_experiment`.
    """
    dataset, _, _, source = _training_crops(experiment, suggestion)
    network = _network(experiment)
    variables = _first_variables(experiment, network, dataset, resumes=False)
    settings = experiment.train.with_length(len(source.crops))
    check_training(settings, variables)
    return measured_alpha(
        network,
        variables,
        experiment.task,
        _training_data(experiment, source),
        settings,
        experiment.run_settings,
    )


def _training_crops(
    experiment: Experiment, suggestion: Path
) -> tuple[Dataset, tuple[Field, ...], dict[str, Any] | None, CropSource]:
    """Data set, training fields, what to record of their order, and their crops."""
    dataset = open_dataset(Path(experiment.data.root))
    fields, order = _training_fields(experiment, dataset, suggestion)
    source = _crop_source(experiment, dataset, fields, fresh=experiment.data.fresh_crops)
    return dataset, fields, order, source


def _training_fields(
    experiment: Experiment, dataset: Dataset, suggestion: Path
) -> tuple[tuple[Field, ...], dict[str, Any] | None]:
    if not experiment.is_pretext:
        n, seed = experiment.num_annotated, experiment.seed
        return annotated_fields(experiment.data, dataset, n, seed, suggestion)
    fields = dataset.select("train", stain=True)
    if not fields:
        raise ValueError(f"{dataset.root}: no training field has a stain to learn to predict")
    return fields, None


def _validation_fields(experiment: Experiment, dataset: Dataset) -> tuple[Field, ...]:
    is_pretext = experiment.is_pretext
    return dataset.select("val", stain=is_pretext, labels=not is_pretext)


def _crop_source(
    experiment: Experiment, dataset: Dataset, fields: tuple[Field, ...], *, fresh: bool = False
) -> CropSource:
    rule, plan = experiment.crop_rule, experiment.crop_plan
    crops: Crops
    if fresh:
        crops = FreshCrops(dataset, fields, rule, plan)
        dropped = crops.dropped
    else:
        crops, dropped = fixed_crops(dataset, fields, rule, plan)
    if dropped:
        print(f"no crop with enough signal ({rule}) in: {', '.join(dropped)}")
    if fields and not len(crops):
        raise ValueError(
            f"{dataset.root}: none of {len(fields)} fields yields a {plan.size}² crop with enough "
            f"signal ({rule}); lower data.crop_size or data.margin"
        )
    return CropSource(dataset, crops, experiment.task)


def _network(experiment: Experiment) -> nn.Module:
    return build_network(
        out_channels=experiment.task.num_outputs,
        head=experiment.head,
        encoder=experiment.model.encoder,
        compute_dtype=jnp.dtype(experiment.model.compute_dtype),
    )


def _first_variables(
    experiment: Experiment, network: nn.Module, dataset: Dataset, *, resumes: bool
) -> dict[str, Any]:
    """What the training starts from; of one that `resumes`, whose weights are there, the shapes."""
    init, in_channels = experiment.init, len(dataset.channels)
    variables = init_variables(network, in_channels=in_channels, seed=experiment.seed)
    if init.kind == "random" or resumes:
        return variables
    if init.kind == "imagenet":
        source = imagenet.imagenet_variables(
            init.weights, in_channels=in_channels, encoder=experiment.model.encoder
        )
    else:
        source = pretext_variables(str(init.checkpoint), dataset, experiment.model.encoder)
    variables, report = transfer(source, variables)
    print(report)
    return variables


def _model_info(experiment: Experiment, dataset: Dataset) -> ModelInfo:
    return ModelInfo(
        study=experiment.study,
        stage=experiment.stage,
        network=NetworkInfo(
            encoder=experiment.model.encoder,
            head=experiment.head,
            out_channels=experiment.task.num_outputs,
            in_channels=len(dataset.channels),
        ),
        task=experiment.task,
        channels=dataset.channels,
        binning=dataset.binning,
        normalisation=dataset.normalisation,
        stain=dataset.stain if experiment.is_pretext else None,
        stain_scale=dataset.stain_scale if experiment.is_pretext else None,
        tta=experiment.instances.tta,
    )


def _training_data(
    experiment: Experiment, source: CropSource, held_out: CropSource | None = None
) -> TrainingData:
    """Batches; or, where the device holds all crops, the order of the crops and these."""
    batch_size, data = experiment.train.batch_size, experiment.data
    order: dict[str, Any] = {
        "batch_size": batch_size,
        "seed": experiment.seed,
        "shard": (jax.process_index(), jax.process_count()),
    }
    if not isinstance(source.crops, FreshCrops) and fits_on_device(
        resident_bytes(source), placement=data.placement, limit_bytes=data.device_mib << 20
    ):
        batches, resident = training_order(len(source.crops), **order), resident_arrays(source)
    else:
        batches = training_batches(source, num_workers=loading_threads(data.num_workers), **order)
        resident = None
    return TrainingData(
        batches,
        resident=resident,
        validation=(lambda: evaluation_batches(held_out, batch_size=batch_size))
        if held_out is not None and len(held_out.crops)
        else None,
    )
