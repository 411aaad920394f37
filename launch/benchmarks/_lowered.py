"""Compiles a training step for an absent device, as a program of its own.

    python -m isl_jax.launch.benchmarks._lowered REQUEST

REQUEST is JSON: target (text that describes a GPU, or null for a TPU), topology, devices, batch,
size, dtype, encoder. Prints one line of JSON, {"leaves": …}, then compiles, which
writes the program where XLA_FLAGS says.
"""

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from isl_jax.models.heads import build_network
from isl_jax.models.variables import init_variables
from isl_jax.task import Kind, Task
from isl_jax.training.devices import batch_sharding, data_mesh, replicated
from isl_jax.training.losses import loss_parameters
from isl_jax.training.optimizer import make_optimizer
from isl_jax.training.packing import Packing
from isl_jax.training.settings import TrainSettings
from isl_jax.training.step import TrainState, make_train_step


def main(request: dict[str, Any]) -> None:
    """Lower the step of the pretext task, tell of it, compile it."""
    topology = (
        topologies.get_topology_desc(
            platform="cuda",
            topology_name="",
            target_config=request["target"],
            topology=request["topology"],
        )
        if request["target"]
        else topologies.get_topology_desc(platform="tpu", topology_name=request["topology"])
    )
    mesh = data_mesh(topology.devices[: request["devices"]])
    network = build_network(
        out_channels=1, encoder=request["encoder"], compute_dtype=jnp.dtype(request["dtype"])
    )
    variables = init_variables(network, in_channels=3, seed=0)
    settings = TrainSettings(request["batch"], 1e-3, num_steps=100)
    parameters = loss_parameters(Task(Kind.STAIN))
    packings = Packing.of(variables["params"]), Packing.of(variables["batch_stats"])
    params = packings[0].join(variables["params"])
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=packings[1].join(variables["batch_stats"]),
        opt_state=jax.eval_shape(make_optimizer(settings, packings[0]).init, params),
        loss_parameters=jax.tree.map(np.float32, parameters),
        seed=jnp.uint32(0),
        finite=jnp.asarray(True),
        packings=packings,
    )
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)), state
    )
    sides = (request["batch"], request["size"], request["size"])
    batch = {
        name: jax.ShapeDtypeStruct((*sides, count), jnp.float32, sharding=batch_sharding(mesh))
        for name, count in (("image", 3), ("target", 1), ("weight", 1))
    }
    lowered = make_train_step(network, Kind.STAIN, settings).lower(state, batch)
    print(json.dumps({"leaves": len(jax.tree.leaves(state))}), flush=True)
    lowered.compile()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
