"""Microscopy files to training batches: layouts, targets, prepared store, crops (never jax)."""
