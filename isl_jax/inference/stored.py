"""Where a trained model is stored, and its variables as a file that can be anybody's."""

import json
from pathlib import Path
from typing import Any

import flax.traverse_util
import ml_dtypes
import numpy as np
from safetensors import TensorSpec, deserialize, safe_open, serialize

from isl_jax.files import write_bytes
from isl_jax.inference.info import ModelInfo, read_info
from isl_jax.models.weights import MOST_BYTES, WEIGHTS, fetched, is_remote

_REMEDY = "copy the model again"
# What a file of weights says of itself, in its metadata: what else stands in model.json.
_METADATA = "isl_jax"
# Numbers that a file may hold; they become float32.
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}
_NAMES = {np.dtype(np.float32): "float32", np.dtype(ml_dtypes.bfloat16): "bfloat16"}


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


def locate(source: str) -> Path:
    """The model folder, or the file of weights that describes itself, that `source` names.

    `source`: a folder or the workdir with one, such a file (`isl-export --format=pretrained`), or
    where one is to be fetched (`models.weights.fetched`). Raises OSError or ValueError in one line.
    """
    path = fetched(source) if is_remote(source) else Path(source)
    if path.is_file() and path.suffix != ".safetensors":
        raise ValueError(f"{path}: no model; weights are taken from folders and .safetensors files")
    return path if path.is_file() else model_folder(path)


def load_stored(source: str) -> tuple[ModelInfo, dict[str, Any]]:
    """What a model is and its variables, float32, from where `locate` finds them.

    They are not held together yet. Raises OSError or ValueError in one line.
    """
    path = locate(source)
    if path.is_dir():
        return read_info(path / "model.json"), read_variables(path / WEIGHTS)
    variables = read_variables(path)
    with safe_open(path, "numpy") as file:
        told = (file.metadata() or {}).get(_METADATA)
    if told is None:
        raise ValueError(
            f"{path}: does not say what its weights are of; name a file that isl-export "
            "--format=pretrained wrote"
        )
    try:
        stored = json.loads(told)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged description ({error}); {_REMEDY}") from error
    return read_info(path, stored), variables


def write_variables(
    file: Path, variables: dict[str, Any], *, description: dict[str, Any] | None = None
) -> None:
    """Write a network's variables, float32 or bfloat16, whole or not at all."""
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    arrays = {name: np.ascontiguousarray(array) for name, array in flat.items()}
    specs = {
        name: TensorSpec(
            dtype=_NAMES[array.dtype],
            shape=list(array.shape),
            data_ptr=array.ctypes.data,
            data_len=array.nbytes,
        )
        for name, array in arrays.items()
    }
    metadata = None if description is None else {_METADATA: json.dumps(description)}
    write_bytes(file, serialize(specs, metadata))


def read_variables(file: Path) -> dict[str, Any]:
    """The inverse, float32; ValueError that names a file which is damaged or no finite numbers."""
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"{file}: larger than any weights of ours; {_REMEDY}")
    flat = {}
    try:
        # In order of their names, so that one within another is always found.
        for name, entry in sorted(deserialize(file.read_bytes()), key=lambda item: item[0]):
            flat[name] = np.array(np.nan, np.float32)
            if known := _DTYPES.get(entry["dtype"]):
                array = np.frombuffer(entry["data"], known).reshape(entry["shape"])
                flat[name] = array.astype(np.float32)
        variables = flax.traverse_util.unflatten_dict(flat, sep="/")
    except Exception as error:  # of names that do not nest, or the parser's own
        raise ValueError(f"{file}: damaged, cannot be read ({error}); {_REMEDY}") from error
    for name, array in flat.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{file}: {name} holds what are no finite numbers; {_REMEDY}")
    return variables
