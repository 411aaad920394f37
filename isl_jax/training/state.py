"""The state of a training run: a plain pytree that is born where it lives."""

from typing import Any

import flax.struct
import jax
import numpy as np
import optax
from jax.sharding import Mesh

from isl_jax.training.devices import replicate, replicated
from isl_jax.training.objectives import LossParameters


@flax.struct.dataclass
class TrainState:
    """All that one step changes, and what it needs beside the batch.

    The parameters of the loss ride along because `alpha="auto"` measures one on the first batches:
    a resumed run must keep the value that the run began with. So does the seed of the augmentation.
    `finite` is false once a step had to be refused.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    loss_parameters: LossParameters
    seed: jax.Array
    finite: jax.Array

    @property
    def variables(self) -> dict[str, Any]:
        """Flax variables of the network."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    variables: dict[str, Any],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    loss_parameters: LossParameters,
    *,
    seed: int = 0,
) -> TrainState:
    """Replicate host `variables` over the mesh and start the optimiser there."""
    variables = replicate(variables, mesh)
    params = variables["params"]
    return TrainState(
        step=replicate(np.zeros((), np.int32), mesh),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=jax.jit(optimizer.init, out_shardings=replicated(mesh))(params),
        loss_parameters=replicate(jax.tree.map(np.float32, loss_parameters), mesh),
        seed=replicate(np.asarray(seed, np.uint32), mesh),
        finite=replicate(np.asarray(True), mesh),
    )
