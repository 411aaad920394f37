"""Real cells: HeLa in phase contrast, from the public set of Van Valen et al. 2016.

Pretext: phase contrast -> nuclear stain. Task: cell instances from one annotated image. The crops,
the batch and the learning rate are of a size that two CPU cores bear; docs/results.md has the
commands, the time and the scores.
"""

from ml_collections import ConfigDict

from isl_jax.configs import base

_SHORT = {"batch_size": 4, "keep": "last", "checkpoint_every": 100}


def get_config(argument: str = "") -> ConfigDict:
    """Configuration for `pretrain`, `segment,init=…,n=…`, or both stages."""
    config = base.study_config(
        "cell",
        base.parse_argument(argument),
        pretrain=_SHORT | {"num_steps": 300},
        segment=_SHORT | {"num_steps": 150},
    )
    config.data.crop_size = 128
    # As much of each image as five crops of 512 hold of one of the paper's.
    config.data.crops_per_image = 10
    return config
