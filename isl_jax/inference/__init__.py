"""A trained model at work: load it, predict images of any size."""
