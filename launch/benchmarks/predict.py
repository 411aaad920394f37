"""Prediction of whole fields, from file to label image, beside its parts one after the other.

Fields of 2160 × 2160, float32. Beside it with --peer: the network in PyTorch (channels_last) and
the post-processing of the paper's code, on the same files, weights and threads. The environment
variable ISL_JAX_MODEL may name a trained cell model without an extra head; otherwise weights are
random. Fields are made of real cells where ISL_JAX_DATA names the folder of the data sets.
"""

import functools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from scipy import ndimage

from isl_jax.data.binning import bin_average
from isl_jax.inference.info import ModelInfo, NetworkInfo, PostProcessing
from isl_jax.inference.job import Job, Stopwatch
from isl_jax.inference.model import Model, load_model
from isl_jax.inference.opening import Source, roles_of
from isl_jax.inference.pipeline import predict_all
from isl_jax.inference.sources import find_sources
from isl_jax.launch.benchmarks.instances import cells, chain
from isl_jax.models.heads import build_network
from isl_jax.models.variables import init_variables
from isl_jax.outputs.catalogue import files_of_image, write_outputs
from isl_jax.outputs.rasters import write_labels
from isl_jax.task import Kind, Task

_SIZE = 2160
_FIELDS = 3


def main(*, peer: bool, encoder: str = "densenet121") -> dict:
    """Print seconds a field of each stage and in all; returns the figures."""
    model, what = _model(encoder)
    figures: dict[str, Any] = {"fields": _FIELDS, "size": _SIZE, "model": what}
    print(f"{_FIELDS} fields of {_SIZE}², {model.info.network.encoder}, {what}; s a field")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = _write_fields(folder, model)
        # Compiled, and everything loaded, before anything is measured.
        _overlapped(sources[:1], model, folder / "warm")
        figures["parts"] = _one_after_the_other(sources, model, folder / "parts")
        figures["overlapped"] = _overlapped(sources, model, folder / "overlapped")
        alone = sum(figures["parts"].values())
        print(_line("parts, one after the other", figures["parts"]))
        print(f"{'overlapped':<28}{figures['overlapped']:.2f}   ", end="")
        print(f"{alone / figures['overlapped']:.2f}× the speed of its parts", flush=True)
        if peer:
            figures["peer"] = _peer(sources, model, folder)
            theirs = sum(figures["peer"].values())
            print(_line("PyTorch and reference chain", figures["peer"]))
            print(f"overlapped against it: {theirs / figures['overlapped']:.2f}× the speed")
            figures["equal"] = _agreement(folder, sources)
            print(f"pixels with the same foreground as the peer: {figures['equal']:.6f}")
    return figures


def _line(name: str, parts: dict[str, float]) -> str:
    inside = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in parts.items())
    return f"{name:<28}{sum(parts.values()):.2f}   ({inside})"


def _model(encoder: str) -> tuple[Model, str]:
    path = os.environ.get("ISL_JAX_MODEL")
    if path:
        model = load_model(path)
        if model.info.network.head != "none" or model.info.postprocessing.h is None:
            raise ValueError(f"ISL_JAX_MODEL={path}: expected a cell model with h and no head")
        return model, f"weights of {Path(path).name}"
    info = ModelInfo(
        "cell",
        "segment",
        NetworkInfo(encoder, "none", 2, 3),
        Task(Kind.INSTANCES),
        ("a", "b", "c"),
        postprocessing=PostProcessing(h=30.0),
    )
    network = build_network(out_channels=2, encoder=encoder)
    return Model(info, init_variables(network, in_channels=3, seed=0)), "random weights"


def _write_fields(folder: Path, model: Model) -> list[Source]:
    (folder / "raw").mkdir()
    for index in range(_FIELDS):
        planes = np.stack([_field(index)] * len(model.info.channels))
        path = folder / "raw" / f"f{index}.tif"
        tifffile.imwrite(path, planes, photometric="minisblack", compression="zlib")
    return find_sources([str(folder / "raw")], roles_of(("a", "b", "c"))).images


def _field(index: int) -> np.ndarray:
    real = Path(os.environ.get("ISL_JAX_DATA", "")) / "phase_hela_and_others/hela4_phase.tif"
    if "ISL_JAX_DATA" in os.environ and real.is_file():
        # At the size that the model has learnt, and mirrored to fill a field.
        image = np.roll(bin_average(tifffile.imread(real), 2), 100 * index, axis=1)
        image = image[:_SIZE, :_SIZE]
        pads = [(0, _SIZE - side) for side in image.shape]
        return np.pad(image, pads, mode="symmetric")
    labels = cells(_SIZE, 300, seed=index)
    noise = np.random.default_rng(index).normal(2000, 200, labels.shape)
    return (ndimage.gaussian_filter(noise, 1) + 400 * (labels > 0)).astype(np.uint16)


def _job(folder: Path, model: Model) -> Job:
    write = functools.partial(write_outputs, folder, model.info, ("labels",))
    files = functools.partial(files_of_image, model.info, ("labels",))
    job = Job(folder, model.info, ("labels",), "benchmark", write, files)
    job.prepare()
    return job


def _overlapped(sources: list[Source], model: Model, folder: Path) -> float:
    job = _job(folder, model)
    start = time.perf_counter()
    outcomes = list(predict_all(sources, model, job))
    seconds = (time.perf_counter() - start) / len(sources)
    for outcome in outcomes:
        if outcome.error:
            raise outcome.error
    return seconds


def _one_after_the_other(sources: list[Source], model: Model, folder: Path) -> dict[str, float]:
    job = _job(folder, model)
    for source in sources:
        start = time.perf_counter()
        image = source.open(job.scratch)
        prepared = model.prepare(image.planes)
        job.stopwatch.add("read", start)
        start = time.perf_counter()
        (maps,) = model.maps_of([prepared])
        job.stopwatch.add("network", start)
        job.finish(image, maps)
    return {stage: s / len(sources) for stage, s in job.stopwatch.seconds.items()}


def _peer(sources: list[Source], model: Model, folder: Path) -> dict[str, float]:
    network = _torch_network(model)
    network(np.zeros((1, 3, _SIZE, _SIZE), np.float32))
    stopwatch = Stopwatch()
    for source in sources:
        start = time.perf_counter()
        image = tifffile.imread(source.path).astype(np.float32)
        image -= image.mean((1, 2), keepdims=True)
        image /= image.std((1, 2), keepdims=True)
        stopwatch.add("read", start)
        start = time.perf_counter()
        distance, logit = network(image[None])[0]
        stopwatch.add("network", start)
        start = time.perf_counter()
        labels = chain(distance * np.float32(model.info.task.distance_unit), logit > 0)
        stopwatch.add("label", start)
        start = time.perf_counter()
        write_labels(folder / f"peer_{source.name}.tif", labels)
        stopwatch.add("write", start)
    return {stage: s / len(sources) for stage, s in stopwatch.seconds.items()}


def _torch_network(model: Model) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    from isl_jax.launch.benchmarks._torch_unet import TorchUNet
    from isl_jax.models.architecture import encoder_config
    from isl_jax.models.port import torch_from_variables

    torch.set_num_threads(os.cpu_count() or 1)
    network = TorchUNet(2, encoder_config(model.info.network.encoder))
    arrays = torch_from_variables(model.variables)
    network.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in arrays.items()})
    network.eval().to(memory_format=torch.channels_last)
    # Sides are padded to multiples of 32 as in ours.
    pad = torch.nn.ReflectionPad2d((0, -_SIZE % 32, 0, -_SIZE % 32))

    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = pad(torch.from_numpy(image)).contiguous(memory_format=torch.channels_last)
            return network(x)[..., :_SIZE, :_SIZE].numpy()

    return run


def _agreement(folder: Path, sources: list[Source]) -> float:
    name = sources[0].name
    ours = tifffile.imread(folder / "overlapped" / f"{name}_labels.tif") > 0
    theirs = tifffile.imread(folder / f"peer_{name}.tif") > 0
    return float((ours == theirs).mean())
