"""Learn to segment label-free microscopy from a handful of annotations, by in silico labelling."""
