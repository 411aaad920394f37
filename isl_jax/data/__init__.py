"""Prepared fields to training batches: store, splits, targets, crops, batches (never jax)."""
