"""Microscopy files to training batches: readers, layouts, targets, prepared store, crops (no jax here)."""
