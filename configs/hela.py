"""Real cells: HeLa and others in phase contrast (the public DeepCell set of Van Valen et al. 2016).

Pretext: phase -> nuclear stain. Task: cell instances from one annotated image.
"""

from ml_collections import ConfigDict

from isl_jax.configs import base


def get_config(argument: str = "") -> ConfigDict:
    """Configuration for `pretrain`, `segment,init=…,n=…`, or both stages."""
    parsed = base.parse_argument(argument, study="cell")
    config = base.study_config(parsed["study"], parsed)
    config.data.crop_size = 192
    for name, num_steps in (("pretrain", 400), ("train", 200)):
        if name in config:
            schedule = config[name]
            schedule.batch_size = 4
            schedule.num_steps = 400 if parsed["stage"] == "pretrain" else num_steps
            schedule.checkpoint_every = 100
            schedule.validate_every = 1000
            schedule.keep = "last"
    return config
