"""BioImage.IO: a package that deepImageJ, ilastik and others run, with its own test images."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from isl_jax.export.check import TOLERANCE, need
from isl_jax.export.onnx_model import OPSET, maps_bytes
from isl_jax.inference.info import CITATION, ModelInfo
from isl_jax.inference.model import Model

# Sides are SIDE + k · STEP pixels; HALO at the border of a tile is worse than its middle.
SIDE, STEP, HALO = 128, 32, 32
_DOI = "10.48550/arXiv.2301.03914"
_MEANING = {
    "stain": "predicted stain",
    "probability": "probability that a pixel is foreground",
    "distance": "distance to the border of the cell, higher towards its centre",
}


def bioimageio_bytes(model: Model, *, name: str, author: str) -> bytes:
    """A zipped BioImage.IO model (format 0.5): raw planes in, the maps of `Model.predict` out.

    The weights are those of `maps_bytes`; test images are noise and what `Model.predict` makes of
    it. Raises ValueError if bioimageio.core is not installed, RuntimeError if it finds fault with
    the package or its outputs are not ours.
    """
    spec, core = need("bioimageio.spec"), need("bioimageio.core")
    with tempfile.TemporaryDirectory() as temporary:
        folder, package = Path(temporary, "package"), Path(temporary, "package.zip")
        folder.mkdir()
        (folder / "weights.onnx").write_bytes(maps_bytes(model))
        image = _smooth_noise(model.info.network.in_channels)
        np.save(folder / "test_image.npy", image[None])
        for output, array in _expected(model, image).items():
            np.save(folder / f"test_{output}.npy", array[None, None])
        (folder / "README.md").write_text(_readme(model.info, name))
        (folder / "model.json").write_text(json.dumps(model.info.to_json(), indent=1))
        description = _description(model.info, name, author)
        # JSON is YAML.
        (folder / "rdf.yaml").write_text(json.dumps(description, indent=1))
        spec.save_bioimageio_package(folder / "rdf.yaml", output_path=package)
        summary = core.test_model(package)
        if summary.status == "failed":
            faults = [error.msg for detail in summary.details for error in detail.errors]
            raise RuntimeError(f"bioimageio.core finds fault with the package: {'; '.join(faults)}")
        return package.read_bytes()


def _smooth_noise(channels: int) -> np.ndarray:
    """Planes `[C, SIDE, SIDE]` float32 that look like camera images: 0..4095, no hard edges."""
    coarse = np.random.default_rng(0).random((channels, SIDE // 8 + 1, SIDE // 8 + 1))
    at = np.arange(SIDE) / 8
    low, part = at.astype(int), at % 1
    rows = coarse[:, low] * (1 - part)[:, None] + coarse[:, low + 1] * part[:, None]
    both = rows[..., low] * (1 - part) + rows[..., low + 1] * part
    return np.round(4095 * both).astype(np.float32)


def _expected(model: Model, image: np.ndarray) -> dict[str, np.ndarray]:
    with jax.default_matmul_precision("highest"):
        found = model.predict(image, labels=False)
    maps = {output: getattr(found, output) for output in model.info.task.map_names}
    if "stain" in maps and model.info.stain_scale is not None:
        maps["stain"] = model.info.stain_scale.unscale(maps["stain"])
    return {output: np.asarray(array, np.float32) for output, array in maps.items()}


def _description(info: ModelInfo, name: str, author: str) -> dict[str, Any]:
    outputs = info.task.map_names
    sides = [
        {"type": "space", "id": side, "size": {"min": SIDE, "step": STEP}} for side in ("y", "x")
    ]
    image = {
        "id": "image",
        "description": f"label-free planes: {', '.join(info.channels)}",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": _identifiers(info.channels)},
            *sides,
        ],
        "data": {"type": "float32"},
        "test_tensor": {"source": "test_image.npy"},
        "preprocessing": [
            # The model adds nothing to the deviation, whatever the unit; the format asks for a bit.
            # What `flat` does beside is part of the network.
            {"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"], "eps": 1e-20}}
        ],
    }
    return {
        "type": "model",
        "format_version": "0.5.3",
        "name": re.sub(r"[^\w\-(). ]", " ", name)[:120],
        "description": f"{info.study} study, {info.stage}: {' and '.join(outputs)} from "
        "label-free microscopy (in silico labelling)",
        "authors": [{"name": author}],
        "cite": [{"text": CITATION, "doi": _DOI}],
        "documentation": "README.md",
        "tags": ["label-free", "segmentation", "in-silico-labeling", "unet"],
        **_licence(info.licence),
        "attachments": [{"source": "model.json"}],
        "config": {"bioimageio": {"reproducibility_tolerance": _tolerances(info, outputs)}},
        "inputs": [image],
        "outputs": [_output(output, info) for output in outputs],
        "weights": {"onnx": {"source": "weights.onnx", "opset_version": OPSET}},
    }


def _tolerances(info: ModelInfo, outputs: tuple[str, ...]) -> list[dict[str, Any]]:
    """1e-4 of each map's range: no pixel may be off by more."""
    scale = info.stain_scale
    ranges = {
        "stain": 1.0 if scale is None else scale.high - scale.low,
        "distance": info.task.distance_unit,
        "probability": 1.0,
    }
    return [
        {
            "output_ids": [name],
            "relative_tolerance": TOLERANCE,
            "absolute_tolerance": TOLERANCE * ranges[name],
            "mismatched_elements_per_million": 0,
        }
        for name in outputs
    ]


def _output(name: str, info: ModelInfo) -> dict[str, Any]:
    sides = [
        {"type": "space", "id": s, "halo": HALO, "size": {"tensor_id": "image", "axis_id": s}}
        for s in ("y", "x")
    ]
    unit = info.stain_scale.unit if name == "stain" and info.stain_scale else ""
    return {
        "id": name,
        "description": _MEANING[name] + (f", in {unit}" if unit else ""),
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": [name]}, *sides],
        "data": {"type": "float32"},
        "test_tensor": {"source": f"test_{name}.npy"},
    }


def _identifiers(channels: tuple[str, ...]) -> list[str]:
    """Channel names as the format takes them: letters, digits and _, each once."""
    names = [re.sub(r"\W+", "_", channel).strip("_") for channel in channels]
    if len(set(names)) == len(names) and all(name.isidentifier() for name in names):
        return names
    return [f"plane{k}_{name}".rstrip("_") for k, name in enumerate(names)]


def _licence(text: str) -> dict[str, str]:
    """The licence field, if the model's licence is one that SPDX knows."""
    licence = need("bioimageio.spec.model.v0_5").LicenseId
    try:
        return {"license": str(licence(text))}
    except ValueError:
        return {}


def _reading(info: ModelInfo) -> str:
    """How labels follow from the maps."""
    options = info.postprocessing
    foreground = f"Foreground: probability above {options.threshold:g}."
    smallest = f"Objects of fewer than {options.min_size} pixels are dropped."
    if info.task.is_stain:
        return ""
    if not info.task.has_distance:
        return f"{foreground} {smallest}"
    return (
        f"{foreground} Marker contrast h of the watershed, in map units: {options.h}, after "
        f"a Gaussian of sigma {options.sigma:g} pixels on the distance map. {smallest}"
    )


def _readme(info: ModelInfo, name: str) -> str:
    return f"""# {name}

Input: {len(info.channels)} label-free planes ({", ".join(info.channels)}), raw.
Stage: {info.stage} ({info.study} study), encoder {info.network.encoder}.
{_reading(info)}
Licence of the weights: {info.licence}.

## Validation

Compare labels with hand-drawn ones on images withheld from training: intersection over union for
nuclei, average precision over IoU 0.50 to 0.95 for cells.

{CITATION}
"""
