"""Real nuclei: bright field, from the public set of aiSEGcell (Schirmacher et al. 2024).

    isl-fetch --dataset=aisegcell --subset=nuclei --out=RAW
    isl-prepare --source=RAW --layout=aisegcell --bin=2 --out=DATA
    isl-sweep --config=configs/brightfield.py --config.data.root=DATA --n=1 --inits=imagenet,isl \
        --workdir=S
    isl-report --workdir=S

Pretext: bright field -> nuclear stain. Task: semantic masks of nuclei. The sizes are those of
configs/hela.py; docs/results.md has the commands and the scores of a shorter run.
"""

from ml_collections import ConfigDict

from isl_jax.configs import base

_SHORT = {"batch_size": 4, "keep": "last", "checkpoint_every": 100, "validate_every": 50}


def get_config(argument: str = "") -> ConfigDict:
    """Configuration for `pretrain`, `segment,init=…,n=…`, or both stages."""
    config = base.study_config(
        "nucleus",
        base.parse_argument(argument),
        pretrain=_SHORT | {"num_steps": 300},
        segment=_SHORT | {"num_steps": 150},
    )
    config.data.crop_size = 128
    config.data.crops_per_image = 10
    return config
