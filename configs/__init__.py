"""Experiment configurations: one study a file."""
