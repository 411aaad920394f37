"""The README's demo: both studies on simulated cells, real network, small crops, few steps.

    make demo

Sizes are chosen so that the effect of the pretraining shows on two CPU cores in minutes; the
network, the losses and the post-processing are those of the paper's studies. docs/results.md has
what it printed.
"""

from ml_collections import ConfigDict

from isl_jax.configs import base

# Without validation images (N is all there is) the last step, at learning rate 0, is the model.
_SHORT = {"batch_size": 4, "keep": "last", "checkpoint_every": 100}


def get_config(argument: str = "study=nucleus") -> ConfigDict:
    """Configuration for `study=nucleus` or `study=cell`, with a stage as in the other files."""
    parsed = base.parse_argument(argument, study="nucleus")
    config = base.study_config(
        parsed["study"],
        parsed,
        pretrain=_SHORT | {"num_steps": 120},
        # Two outputs take longer to learn than one; with 90 steps one seed of three had not learnt
        # its distance map.
        segment=_SHORT | {"num_steps": 60 if parsed["study"] == "nucleus" else 120},
    )
    config.data.crop_size = 128
    # As much of each image as five crops of 512 hold of one of the paper's.
    config.data.crops_per_image = 8
    return config
