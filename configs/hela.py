"""Real cells: HeLa in phase contrast, from the public set of Van Valen et al. 2016.

    isl-fetch --dataset=deepcell2016 --subset=hela --out=RAW
    isl-prepare --source=RAW --layout=deepcell2016 --bin=2 --test_groups=HeLa_joint_set1 \
        --val_groups=HeLa_joint_set3 --out=DATA
    isl-sweep --config=configs/hela.py --config.data.root=DATA --n=1 --inits=imagenet,isl \
        --workdir=S
    isl-report --workdir=S

Pretext: phase contrast -> nuclear stain. Task: cell instances from one annotated image. The crops,
the batch and the learning rate are of a size that two CPU cores bear; docs/results.md has the
commands, the time and the scores. `size=small`, for docs/tutorial.md, makes fewer steps.
"""

from ml_collections import ConfigDict

from isl_jax.configs import base

# Steps of the pretext training and of each segmentation.
_STEPS = {"default": (300, 150), "small": (200, 100)}


def get_config(argument: str = "") -> ConfigDict:
    """Configuration for `pretrain`, `segment,init=…,n=…`, or both stages; `size=small`."""
    parsed = base.parse_argument(argument, size="default")
    if parsed["size"] not in _STEPS:
        raise ValueError(f"config argument {argument!r}: size is one of {', '.join(_STEPS)}")
    pretrain, segment = _STEPS[parsed["size"]]
    short = {"batch_size": 4, "keep": "last", "checkpoint_every": 100, "validate_every": 50}
    config = base.study_config(
        "cell",
        parsed,
        pretrain=short | {"num_steps": pretrain},
        segment=short | {"num_steps": segment},
    )
    config.data.crop_size = 128
    # As much of each image as five crops of 512 hold of one of the paper's.
    config.data.crops_per_image = 10
    return config
