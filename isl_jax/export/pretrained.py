"""Weights that travel: a pretext network as a folder that others begin their segmentation from.

weights.safetensors   the weights, which describe themselves; README.md has their checksum
model.json            the same description, so that the folder is a model folder, too
README.md             the card: what it was learnt from, how to use it, licences
check.safetensors     two images and what the network makes of them
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save

from isl_jax.export.check import check_equal, draw_images, exact_outputs
from isl_jax.files import write_bytes, write_json, write_text
from isl_jax.inference.info import CITATION, ModelInfo
from isl_jax.inference.model import Model
from isl_jax.inference.stored import load_stored, write_variables
from isl_jax.models.weights import WEIGHTS

DTYPES = ("float32", "bfloat16")
CHECK = "check.safetensors"


def write_pretrained(
    model: Model, folder: Path, *, name: str, dtype: str, data_licences: Sequence[str]
) -> None:
    """Write the files of `model` into an empty `folder`; `data_licences` say whose its images were.

    bfloat16 rounds the kernels, 99 % of the numbers; biases and BatchNorm stay float32. What has
    been written is read again as a user does: raises RuntimeError unless its outputs are, bit for
    bit, those of the weights that went in, ValueError for a model that is no pretext network.
    """
    if not model.info.task.is_stain:
        raise ValueError(
            f"pretrained: the weights that others begin from are those of a pretext run (stage "
            f"pretrain); this model was trained on {model.info.task.kind}"
        )
    described = model.info.to_json()
    stored = jax.tree.map(lambda array: _rounded(np.asarray(array), dtype), model.variables)
    write_variables(folder / WEIGHTS, stored, description=described)
    write_json(folder / "model.json", described)
    images = draw_images(model, 64, 96)
    same = Model(model.info, jax.tree.map(lambda array: np.asarray(array, np.float32), stored))
    outputs = exact_outputs(same, images)
    write_bytes(folder / CHECK, save({"images": images, "outputs": outputs}))
    for source in (str(folder), str(folder / WEIGHTS)):
        if not np.array_equal(_outputs_of(source, images), outputs):
            raise RuntimeError(f"{source}: its outputs are not those of the model; nothing is kept")
    rounding = float(np.abs(outputs - exact_outputs(model, images)).max())
    facts = {"dtype": dtype, "rounding": rounding, "digest": _digest(folder / WEIGHTS)}
    write_text(folder / "README.md", _card(model.info, name, data_licences, facts))


def check_pretrained(folder: Path) -> None:
    """Does such a folder give on this device what it gave where it was written, within 1e-4?

    Raises RuntimeError if it does not, ValueError or OSError if it cannot be read.
    """
    kept = load_file(Path(folder) / CHECK)
    check_equal(_outputs_of(str(folder), kept["images"]), kept["outputs"], str(folder))


def _outputs_of(source: str, images: np.ndarray) -> np.ndarray:
    info, variables = load_stored(source)
    return exact_outputs(Model(info, variables), images)


def _rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    return array.astype(ml_dtypes.bfloat16) if dtype == "bfloat16" and array.ndim == 4 else array


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _card(info: ModelInfo, name: str, data_licences: Sequence[str], facts: dict[str, Any]) -> str:
    named = re.fullmatch(r"[A-Za-z0-9.+-]+", info.licence)
    licence = info.licence.lower() if named else "other"
    planes = ", ".join(info.channels)
    normalised = dataclasses.asdict(info.normalisation)
    training = info.training
    fields = training.get("fields") or []
    data = "".join(f"* {text}\n" for text in data_licences) or (
        "* not stated: ask whoever trained the model before you pass it on\n"
    )
    return f"""---
license: {licence}
library_name: isl-jax
tags: [microscopy, label-free, in-silico-labeling, segmentation, pretraining]
---

# {name}

A U-Net with encoder {info.network.encoder} that learnt to predict a stain ({info.stain}) from
label-free images, as first weights for segmentation with few annotated images.

| | |
|---|---|
| Input planes | {info.network.in_channels}: {planes} |
| Normalisation | {json.dumps(normalised)}, pixels binned {info.binning} × {info.binning} |
| Trained on | {len(fields)} fields: {", ".join(fields) or "not recorded"} |
| Steps | {training.get("step", "not recorded")} |
| First weights | {training.get("init", "not recorded")} |
| Stored as | {facts["dtype"]} |
| SHA-256 of {WEIGHTS} | `{facts["digest"]}` |

## Use

    isl-train --config=configs/cell.py:segment,init=isl,n=1 --config.data.root=DATA \\
      --config.model.encoder={info.network.encoder} --config.init.checkpoint=THIS --workdir=W

THIS is this folder, or `https://SERVER/{WEIGHTS}#sha256={facts["digest"]}`,
or `hf:OWNER/NAME@REVISION`. DATA needs no stain. Where it has another number of planes, each gets
an equal share of the sum of the first kernel over its planes.

## Licence

Of the weights: {info.licence}.

Of the images that they were learnt from, which may bind you:

{data}
## Check

`isl_jax.export.pretrained.check_pretrained(FOLDER)` compares what the weights give of the images
in `{CHECK}` with what they gave when this was written. Rounding the weights has changed
these outputs by {facts["rounding"]:.2g} at most.

{CITATION}
"""
