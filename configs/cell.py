"""The paper's cell study: 3 DIC planes -> CellMask -> cell instances.

    isl-train --config=configs/cell.py:pretrain --config.data.root=DATA --workdir=W0
    isl-train --config=configs/cell.py:segment,init=isl,n=1 --config.init.checkpoint=W0 \
        --config.data.root=DATA --workdir=W1

Paper: PCC 0.97 ± 0.02; mAP at N=1 0.17 ± 0.1 (ImageNet), 0.33 ± 0.09 (ISL). The paper's data are
not public, so these settings have not been run at full size.
"""

from ml_collections import ConfigDict

from isl_jax.configs import base


def get_config(argument: str = "") -> ConfigDict:
    """Configuration for `pretrain`, `segment,init=…,n=…`, or both stages."""
    config = base.study_config("cell", base.parse_argument(argument))
    # The top third of data set 2's images is badly lit.
    config.data.margin = (1 / 3, 0.0, 0.0, 0.0)
    return config
