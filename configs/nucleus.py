"""The paper's nucleus study: 2 bright-field planes + phase contrast -> DAPI -> nucleus masks.

    isl-train --config=configs/nucleus.py:pretrain --config.data.root=DATA --workdir=W0
    isl-train --config=configs/nucleus.py:segment,init=isl,n=1 --config.init.checkpoint=W0 \
        --config.data.root=DATA --workdir=W1

Paper: PCC 0.95 ± 0.08; IoU at N=1 0.64 ± 0.2 (ImageNet), 0.84 ± 0.1 (ISL). The paper's data are
not public, so these settings have not been run at full size.
"""

from ml_collections import ConfigDict

from isl_jax.configs import base


def get_config(argument: str = "") -> ConfigDict:
    """Configuration for `pretrain`, `segment,init=…,n=…`, or both stages."""
    return base.study_config("nucleus", base.parse_argument(argument))
