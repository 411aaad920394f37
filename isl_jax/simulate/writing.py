"""Files of a simulated study, named as the reference data sets; written whole, and resumable."""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from imagecodecs import png_encode
from tifffile import imwrite

from isl_jax.files import read_json, write_bytes, write_json, written_whole
from isl_jax.simulate.imaging import simulate_field
from isl_jax.simulate.parameters import Simulation

PARAMETERS_FILE = "simulation.json"
# Goes up whenever the same parameters give different images.
VERSION = 1

# File name of each channel, "labels" being the truth of the study.
_NAMES = {
    "nucleus": {
        "phase_contrast": "s{:04d}_ch1.tiff",
        "dapi": "s{:04d}_ch4.tiff",
        "bright_field": "s{:04d}_ch5.tiff",
        "labels": "s{:04d}_cellpose.png",
    },
    "cell": {
        "dic": "simulated_w5DIC-oil-40x_s{:04d}.TIF",
        "membrane": "simulated_w4Cy5_s{:04d}.TIF",
        "dapi": "simulated_w3Hoechst_s{:04d}.TIF",
        "labels": "simulated_cell_instance_s{:04d}.png",
    },
}


def field_files(study: str, index: int) -> dict[str, str]:
    """Channel → file name of field number `index` (the names count from 1)."""
    return {channel: name.format(index + 1) for channel, name in _NAMES[study].items()}


def write_study(
    out: Path,
    parameters: Simulation,
    num_fields: int,
    *,
    workers: int = 1,
    progress: Callable[..., Iterable] = lambda items, **_: items,
) -> int:
    """Simulate the fields that `out` lacks; returns how many were written.

    Fields are 16-bit TIFF (pixel size in µm in the metadata) and PNG for labels; the parameters
    go to simulation.json. `progress(iterable, total=)` may wrap the fields. Raises ValueError in
    one line, before anything is written, if `out` holds something else.
    """
    out = Path(out)
    if num_fields < 1:
        raise ValueError(f"number of fields is {num_fields}; expected 1 or more")
    _claim(out, parameters)
    files = {index: field_files(parameters.study, index).values() for index in range(num_fields)}
    missing = [i for i, names in files.items() if not all((out / name).is_file() for name in names)]
    write = partial(write_field, out, parameters)
    if workers == 1 or len(missing) < 2:
        for _ in progress(map(write, missing), total=len(missing)):
            pass
        return len(missing)
    # Fresh processes: forked ones would inherit the threads of whatever else is running here.
    with ProcessPoolExecutor(min(workers, len(missing)), get_context("spawn")) as pool:
        for _ in progress(pool.map(write, missing), total=len(missing)):
            pass
    return len(missing)


def write_field(out: Path, parameters: Simulation, index: int) -> None:
    """Simulate field number `index` and write its files into `out`."""
    images = simulate_field(parameters, index)
    labels = images.nuclei if parameters.study == "nucleus" else images.cells
    names = field_files(parameters.study, index)
    for channel, stack in images.channels.items():
        _write_tiff(out / names[channel], stack, parameters)
    write_bytes(out / names["labels"], bytes(png_encode(labels.astype(np.uint16))))


def _claim(out: Path, parameters: Simulation) -> None:
    """Write simulation.json, or check that the one there says the same."""
    record = {"version": VERSION, **json.loads(json.dumps(asdict(parameters)))}
    path = out / PARAMETERS_FILE
    if path.is_file():
        difference = _difference(read_json(path, remedy="choose another --out"), record)
        if difference:
            raise ValueError(
                f"{path}: the fields there were simulated with {difference}; choose another "
                "--out, or remove the folder"
            )
        return
    if out.exists() and (not out.is_dir() or any(p.name[0] != "." for p in out.iterdir())):
        raise ValueError(
            f"{out}: is not an empty folder, nor one of simulated fields; choose another --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, record)


def _difference(found, expected, name: str = "") -> str:
    """First value in which two records differ, as text; empty if they agree."""
    if not (isinstance(found, dict) and isinstance(expected, dict)):
        return "" if found == expected else f"{name} {found}, not {expected}"
    for key in [*expected, *(found.keys() - expected.keys())]:
        text = _difference(found.get(key), expected.get(key), key)
        if text:
            return text
    return ""


def _write_tiff(path: Path, stack: np.ndarray, parameters: Simulation) -> None:
    per_um = 1 / parameters.optics.pixel_size_um
    stacked = len(stack) > 1
    with written_whole(path) as draft:
        imwrite(
            draft,
            stack if stacked else stack[0],
            imagej=True,
            resolution=(per_um, per_um),
            metadata={"axes": "ZYX" if stacked else "YX", "unit": "um"},
        )
