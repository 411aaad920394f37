"""Weights of a pretext run that travel to a data set: does it fit, and what is different there?

A data set need not have a stain of its own, nor the planes, pixels or normalisation of the one that
the pretext was learnt on.
"""

from typing import Any

from isl_jax.data.store import Dataset
from isl_jax.inference.info import ModelInfo
from isl_jax.inference.stored import load_stored
from isl_jax.models.variables import with_inputs


def pretext_variables(source: str, dataset: Dataset, encoder: str) -> dict[str, Any]:
    """Variables of the pretext network `source` for a network `encoder` on the planes of `dataset`.

    Says in what the data sets differ. Where the numbers of planes do, `with_inputs` has the rule.
    Raises ValueError or OSError in one line.
    """
    info, variables = load_stored(source)
    if not info.task.is_stain:
        raise ValueError(
            f"{source}: trained on {info.task.kind}, init.checkpoint wants a pretext run (stage "
            "pretrain), or what was exported from one"
        )
    if info.network.encoder != encoder:
        raise ValueError(
            f"{source}: its encoder is {info.network.encoder}, that of this run {encoder}; set "
            f"--config.model.encoder={info.network.encoder}"
        )
    for difference in _differences(info, dataset):
        print(f"{source}: {difference}")
    if len(info.channels) == len(dataset.channels):
        return variables
    return with_inputs(variables, len(dataset.channels))


def _differences(info: ModelInfo, dataset: Dataset) -> list[str]:
    """In what the pretext's images were others: lines to be read, no errors."""
    found, (theirs, ours) = [], (info.channels, dataset.channels)
    if len(theirs) != len(ours):
        found.append(
            f"learnt on {len(theirs)} planes, this data set has {len(ours)}: each gets an equal "
            "share of the sum of the first kernel over its planes"
        )
    elif theirs != ours:
        found.append(f"learnt on {', '.join(theirs)}; here they are {', '.join(ours)}")
    pairs = {
        "normalisation": (info.normalisation.kind, dataset.normalisation.kind),
        "binning": (info.binning, dataset.binning),
    }
    found += [f"{k} {a}, of this data set {b}" for k, (a, b) in pairs.items() if a != b]
    return found
