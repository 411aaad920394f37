"""Where a trained model is stored, and its variables as a file that can be anybody's."""

from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np
from safetensors.numpy import load_file, save

from isl_jax.files import write_bytes

WEIGHTS = "weights.safetensors"


def model_folder(path: Path | str) -> Path:
    """The folder with the model's files, given it or the workdir that holds it."""
    folder = Path(path)
    if not (folder / "model.json").exists() and (folder / "model").is_dir():
        folder = folder / "model"
    for file in (folder / "model.json", folder / WEIGHTS):
        if not file.exists():
            raise FileNotFoundError(
                f"{file}: no such file; name a model folder or the workdir of a finished run"
            )
    return folder


def write_variables(file: Path, variables: dict[str, Any]) -> None:
    """Write a network's variables, whole or not at all."""
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    write_bytes(file, save({name: np.ascontiguousarray(array) for name, array in flat.items()}))


def read_variables(file: Path) -> dict[str, Any]:
    """The inverse; ValueError that names a file which is damaged or holds no finite numbers."""
    remedy = "copy the model again"
    try:
        flat = load_file(file)
        variables = flax.traverse_util.unflatten_dict(flat, sep="/")
    except Exception as error:  # of names that do not nest, or the parser's own
        raise ValueError(f"{file}: damaged, cannot be read ({error}); {remedy}") from error
    for name, array in flat.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{file}: {name} holds what are no finite numbers; {remedy}")
    return variables
