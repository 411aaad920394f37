"""Maps to instance labels, and labels to scores (no jax here)."""
