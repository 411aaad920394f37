"""Runs of a study and their scores: one run, its settings and its folder, a grid of them."""
