"""What every study shares: defaults, each with the paper's value where the paper gives one.

A study's file calls `study_config` with the text after the colon of `--config=FILE:TEXT`:

    pretrain                      predict the stain
    segment,init=isl,n=1          segment with one annotated image, from a pretext run's weights
    (nothing)                     both stages, for a sweep: `pretrain.*` and `train.*`
    preset=paper                  the paper's settings: fixed crops, no augmentation, all peaks of
                                  the distance map, which is read as it is (h alone is calibrated)

Any key can be overridden on the command line, `--config.train.num_steps=2000`.
"""

from typing import Any

from ml_collections import ConfigDict, config_dict

STAGES = ("pretrain", "segment")
INITS = ("random", "imagenet", "isl")
PRESETS = ("default", "paper")


def parse_argument(text: str, **defaults: str) -> dict[str, str]:
    """Split `segment,init=isl,n=10` into `stage` and named values; unknown names are an error."""
    values = {"stage": "", "init": "imagenet", "n": "1", "preset": "default"} | defaults
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            name, value = "stage", part
        if name not in values:
            known = ", ".join(sorted(values))
            raise ValueError(f"config argument {part!r}: unknown name; known are {known}")
        values[name] = value
    if values["stage"] not in ("", *STAGES):
        raise ValueError(f"config argument {text!r}: stage is one of {', '.join(STAGES)}")
    if values["init"] not in INITS:
        raise ValueError(f"config argument {text!r}: init is one of {', '.join(INITS)}")
    if values["preset"] not in PRESETS:
        raise ValueError(f"config argument {text!r}: preset is one of {', '.join(PRESETS)}")
    if not values["n"].isdigit() or int(values["n"]) < 1:
        raise ValueError(f"config argument {text!r}: n is a number of annotated images, 1 or more")
    return values


def _train(
    num_samples: int, learning_rate: float, changes: dict[str, Any] | None = None
) -> ConfigDict:
    config = ConfigDict(
        {
            # Crops per update over all devices. Paper's code: 10.
            "batch_size": 10,
            # Length: crops seen (paper: 20 000 for segmentation). num_epochs, passes over the
            # crops, takes its place if more than 0; num_steps, optimiser updates, that of both. One
            # that is given on the command line takes the place of those that a file sets.
            "num_samples": num_samples,
            "num_epochs": 0.0,
            "num_steps": config_dict.placeholder(int),
            # Validations in a row without a lower loss that end the run early; 0: never. Paper:
            # baselines that stopped learning were stopped.
            "patience": 0,
            # Those before this step do not count: the statistics of BatchNorm lag behind at first.
            "patience_from": 200,
            # Adam. The paper's code has 0.1 (pretext) and 0.01, for targets of 0..65535; ours are
            # 0..1.
            "learning_rate": learning_rate,
            # constant (paper) or cosine: decay to 0 at the last step.
            "schedule": "cosine",
            # Steps of linear warm-up. Paper: none.
            "warmup_steps": 10,
            # Adam's beta 1. Paper's code: 0.5 (pretext), 0.9 (segmentation).
            "b1": 0.9,
            "b2": 0.999,
            # Bound on the global gradient norm; 0: none (paper).
            "clip_norm": 0.0,
            # Learning rate of the two convolutions after an ISL network, cell study, relative to
            # the rest: they start from nothing. 10 gives them the 0.01 of the paper's code.
            "head_rate": 10.0,
            # Learning rate of parameters by path, relative to the rest, "PATTERN=RATE; …" with
            # regular expressions, the first that fits counts; 0 freezes: "encoder/=0.1".
            "rates": "",
            # Steps between checkpoints, and minutes (0: steps alone decide).
            "checkpoint_every": 500,
            "checkpoint_minutes": 0.0,
            # Steps between looks at the validation set.
            "validate_every": 250,
            # Steps between lines of metrics.jsonl.
            "log_every": 10,
            # best: lowest validation loss (paper; the last step without a validation set), or last.
            "keep": "best",
        }
    )
    config.update(changes or {})
    return config


def _data() -> dict[str, Any]:
    return {
        # Folder written by `isl-prepare`.
        "root": config_dict.placeholder(str),
        # Which fields are annotated: random, drawn by the seed (paper), or suggested, the order of
        # isl-annotate, whatever the seed.
        "choose": "random",
        # suggested: a pretext run by whose encoder fields are compared; none: by statistics of the
        # images. isl-sweep takes its own pretext run for all arms.
        "choose_with": config_dict.placeholder(str),
        # Side of the square crops in pixels. Paper: 512.
        "crop_size": 512,
        # Crops drawn from each image. Paper: 5.
        "crops_per_image": 5,
        # New crops in every epoch instead of the same ones. Paper: the same.
        "fresh_crops": True,
        # Crops start anywhere but in these shares of the image's height and width: top,
        # bottom, left, right. Paper, cell study: the badly lit top third is left out.
        "margin": (0.0, 0.0, 0.0, 0.0),
        # Random flips and quarter turns. Paper: none.
        "flips": True,
        # Standard deviation of a random gain (log-normal) and offset of the standardised
        # image. Paper: none.
        "intensity": 0.1,
        # Who holds the training crops: device, host (sends a batch at a time), or auto: the
        # device if they take no more than device_mib (0: a quarter of its free memory).
        "placement": "auto",
        "device_mib": 0,
        # Threads that load crops on the host; 0: the main one does.
        "num_workers": 0,
    }


def _model() -> dict[str, Any]:
    return {
        # densenet121 (paper), 161, 169 or 201; tiny, for tests of everything else.
        "encoder": "densenet121",
        # Of the training: float32, bfloat16, or auto, bfloat16 on GPU and TPU, float32 on
        # CPU. h is calibrated and scores are made in float32.
        "compute_dtype": "auto",
        # Two convolutions after the U-Net, cell study: none, paper (the last one linear) or
        # reference (each with BatchNorm and ReLU, as the authors' code), whatever the first
        # weights are. auto: paper after an ISL network, none otherwise, as the paper has
        # it. A sweep gives ISL's to the control, too (`isl-sweep --comparison`).
        "head": "auto",
        # Slope of eq. (1), nucleus study from ISL. Paper: 1.
        "slope": 1.0,
    }


def _instances() -> dict[str, Any]:
    # How maps become labels: numbers, or auto, chosen on the annotated training images for
    # the highest mAP (nuclei: IoU).
    return {
        # Contrast of a marker in map units, 0 or more. Paper: 10 on its maps.
        "h": "auto",
        # Gaussian that smooths the distance map before, pixels. Paper: none, 0.
        "sigma": "auto",
        # Foreground probability. Paper: 0.5.
        "threshold": "auto",
        # Pixels of the smallest object. Paper: 0.
        "min_size": "auto",
        # Predictions of an image that are averaged: 1, 4 (flipped) or 8 (flipped and
        # turned). Paper: 1.
        "tta": 1,
    }


def study_config(
    study: str,
    argument: dict[str, str],
    *,
    pretrain: dict[str, Any] | None = None,
    segment: dict[str, Any] | None = None,
) -> ConfigDict:
    """Configuration of one stage of `study`; of both when the argument names no stage.

    `pretrain` and `segment` replace values of the stages' `train`.
    """
    stage = argument["stage"]
    config = ConfigDict(
        {
            # nucleus (semantic, IoU) or cell (instances, mAP).
            "study": study,
            # pretrain, segment, or empty for a sweep over both.
            "stage": stage,
            # Seeds the weights, the crops and their order, and which N images are annotated.
            "seed": 0,
            # Trace steps FIRST:LAST for XProf, into the workdir's profile/; empty: none.
            "profile": "",
            # Who gets the metrics beside the terminal and metrics.jsonl: names with commas between,
            # of tensorboard, wandb, mlflow.
            "writers": "tensorboard",
            # Number of annotated images (not crops) of a segmentation run.
            "num_annotated": int(argument["n"]),
            "data": _data(),
            "model": _model(),
            "init": {
                # random, imagenet or isl.
                "kind": argument["init"],
                # isl: workdir of the pretext run, what `isl-export --format=pretrained` wrote,
                # https://…/weights.safetensors#sha256=DIGEST or hf:OWNER/NAME@REVISION.
                "checkpoint": config_dict.placeholder(str),
                # imagenet: a local weights file instead of the download (or set ISL_JAX_IMAGENET).
                "weights": config_dict.placeholder(str),
            },
            "target": {
                # Distance map: normalised (each cell's maximum is 255) or pixels.
                "distance_scale": "normalised",
                # Map units that a network output of 1 stands for.
                "distance_unit": 255.0,
                # single: one peak a cell, so that no cell with a neck reads as two; all: the
                # distance as it is (paper).
                "distance_peaks": "single",
            },
            "loss": {
                # Weight of the semantic term of eq. (2). auto: the initial ratio of MSE to BCE, the
                # paper's rule (2000 for its maps). One value for all arms of a sweep.
                "alpha": "auto",
                # Batches that auto averages over.
                "alpha_batches": 8,
            },
            "instances": _instances(),
            "train": _train(20_000, 1e-3, segment),
        }
    )
    if stage == "pretrain":
        config.train = _train(200_000, 1e-3, pretrain)
        config.num_annotated = 0
    elif not stage:
        config.pretrain = _train(200_000, 1e-3, pretrain)
    if argument["preset"] == "paper":
        config.update(_PAPER)
    return config


# What the paper does otherwise, or not at all.
_PAPER = {
    "data": {"fresh_crops": False, "flips": False, "intensity": 0.0},
    "target": {"distance_peaks": "all"},
    "instances": {"sigma": "0", "threshold": "0.5", "min_size": "0", "tta": 1},
}
