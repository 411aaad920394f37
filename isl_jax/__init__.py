"""Learn to segment label-free microscopy from a handful of annotations, by in silico labelling.

The map, in reading order; docs/architecture.md has every module and three walks.

    task        what a network learns: outputs, maps, units, crop rule and score of each task
    files       whole or not at all: how everything is written; our own JSON
    metrics     scores of one image, and their means

The core, all that a reader of the paper needs; each room knows those above it:

    data        prepared fields to training batches
    models      the network: arrays to arrays, and its pretrained weights
    instances   maps to instance labels, and labels to scores
    training    batches to a trained state
    inference   a trained model at work, on images of any size
    study       runs and their scores: one, or a grid of them

Satellites, which the core does not import:

    ingest      what microscopes and other programs wrote, to fields
    annotate    which fields to annotate, and drafts of their labels
    simulate    cells whose truth is known, seen through optics
    outputs     labels and maps, to files that viewers and tables open
    export      a model, to other programs
    report      many runs, to statistics, figures, words and one page

launch/ and configs/ stand beside this folder; installed, they are isl_jax.launch and
isl_jax.configs.
"""
