"""Real cells without a stain: T98G in phase contrast, from the public set of Tsai et al. 2019.

    isl-fetch --dataset=usiigaci --out=RAW
    isl-prepare --source=RAW --layout=usiigaci --bin=2 --out=DATA
    isl-sweep --config=configs/t98g.py --config.data.root=DATA --n=1,3 --inits=random \
        --workdir=S
    isl-report --workdir=S

There is nothing to learn a pretext task from. The weights of another one travel, where it had as
many channels: `--inits=random,isl --isl_checkpoint=W0`, with the pretext run of configs/hela.py.
"""

from ml_collections import ConfigDict

from isl_jax.configs import base

_SHORT = {"batch_size": 4, "keep": "last", "checkpoint_every": 100, "validate_every": 50}


def get_config(argument: str = "") -> ConfigDict:
    """Configuration for `segment,init=…,n=…`, or for a sweep."""
    config = base.study_config(
        "cell",
        base.parse_argument(argument),
        pretrain=_SHORT | {"num_steps": 300},
        segment=_SHORT | {"num_steps": 200},
    )
    config.data.crop_size = 128
    config.data.crops_per_image = 10
    return config
