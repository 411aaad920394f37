"""The training engine: state, step, sharding, checkpoints, loop."""
