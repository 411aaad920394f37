"""The README's demo: both studies on simulated cells, real network, small crops, few steps.

    make demo

Sizes are chosen so that the effect of the pretraining shows on a laptop's CPU in minutes; the
network, the losses and the post-processing are those of the paper's studies.
"""

from ml_collections import ConfigDict

from isl_jax.configs import base


def get_config(argument: str = "study=nucleus") -> ConfigDict:
    """Configuration for `study=nucleus` or `study=cell`, with a stage as in the other files."""
    parsed = base.parse_argument(argument, study="nucleus")
    config = base.study_config(parsed["study"], parsed)
    config.data.crop_size = 128
    # Every crop of the paper holds some 20 cells; these hold 5, so more of them are drawn.
    config.data.crops_per_image = 5
    for name, num_steps in (("pretrain", 300), ("train", 120)):
        if name in config:
            schedule = config[name]
            schedule.batch_size = 4
            schedule.num_steps = 300 if parsed["stage"] == "pretrain" else num_steps
            schedule.checkpoint_every = 100
            schedule.keep = "last"
            # Without validation images (N is all there is) the last step is the model.
            schedule.validate_every = 1000
    return config
