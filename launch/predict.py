"""Predict images with a trained model: label images, or the stain that the model was taught.

  isl-predict --model=W1 --input='images/*.tif' --out=LABELS
  isl-predict --model=W1 --input=PLATE.zarr --out=LABELS --outputs=labels,table,overlay
  isl-predict --model=W1 --input=RAW --layout=dataset1 --out=LABELS --shard=0/8

--input names files, folders, patterns, OME-Zarr images and plates, or a .txt list of these. Files
called <field>_<channel> after the model's channels are put together, one image a field; otherwise
each file is an image that holds the channels, found by their names or in their order. What is done
already is skipped, an image that fails is reported and the rest go on. Outputs:
  labels     <image>_labels.tif, uint16 (uint32 from 65,536 objects on)
  stain      <image>_stain.tif, the predicted stain in the units of the training stain
  maps       <image>_probability.tif and, for cells, <image>_distance.tif (--from_maps reads them)
  table      <image>.csv, a row an object: place, size, shape, brightness in each channel
  rois       <image>_rois.zip for ImageJ
  geojson    <image>.geojson for QuPath
  zarr       <image>.ome.zarr, the image with the labels inside
  overlay    <image>_overlay.png, and index.html, a page of all images
Other labels from the same maps, without the network:
  isl-predict --model=W1 --from_maps=LABELS --out=OTHER --h=40 --min_size=50
"""

import dataclasses
import functools
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import jax.numpy as jnp
from absl import flags
from tqdm import tqdm

from isl_jax.inference.augmented import TTA
from isl_jax.inference.expansion import split_inputs
from isl_jax.inference.folder import read_records
from isl_jax.inference.info import ModelInfo
from isl_jax.inference.job import ImageSource, Job, fingerprint, shard
from isl_jax.inference.model import Model, load_model
from isl_jax.inference.opening import roles_of
from isl_jax.inference.pipeline import Outcome, Rate, predict_all
from isl_jax.inference.relabel import find_maps
from isl_jax.inference.sources import FoundSources, find_sources, told
from isl_jax.inference.stored import model_folder
from isl_jax.inference.tiling import HALO, TILE
from isl_jax.ingest.layouts import parse_roles
from isl_jax.ingest.presets import load_layout
from isl_jax.launch.command import command
from isl_jax.launch.configuration import configure_jax
from isl_jax.locks import locked
from isl_jax.outputs.catalogue import files_of_image, outputs_of, write_outputs
from isl_jax.outputs.pictures import write_contact_sheet

_MODEL = flags.DEFINE_string("model", None, "Workdir of a run, or its model folder.")
_INPUT = flags.DEFINE_string(
    "input", None, "Images: files, folders, patterns, lists (.txt), separated by commas."
)
_FROM_MAPS = flags.DEFINE_string(
    "from_maps", None, "Folder of earlier --outputs=maps: label these anew, without the network."
)
_OUT = flags.DEFINE_string("out", None, "Folder for the outputs.")
_OUTPUTS = flags.DEFINE_list("outputs", None, "What to write; default: labels, or the stain.")
_LAYOUT = flags.DEFINE_string("layout", None, "Layout of the --input folder, as for isl-prepare.")
_CHANNELS = flags.DEFINE_string(
    "channels", None, "What the images call the model's channels, in its order; e.g. bf[1,2],phase."
)
_BIN = flags.DEFINE_integer(
    "bin",
    None,
    "Average blocks of this many pixels squared, as for the training; default: the model's.",
    lower_bound=1,
)
_EXCLUDE = flags.DEFINE_string("exclude", None, "Leave out images in whose name this is found.")
_H = flags.DEFINE_float("h", None, "Marker contrast in map units; default: the model's.")
_SIGMA = flags.DEFINE_float(
    "sigma", None, "Gaussian on the distance map before, pixels; default: the model's."
)
_THRESHOLD = flags.DEFINE_float("threshold", None, "Foreground probability; default: the model's.")
_MIN_SIZE = flags.DEFINE_integer("min_size", None, "Drop objects of fewer pixels.")
_FILL_HOLES = flags.DEFINE_bool("fill_holes", None, "Fill holes in objects.")
_KEEP_UNMARKED = flags.DEFINE_bool("keep_unmarked", None, "Keep foreground without a marker.")
_TTA = flags.DEFINE_enum(
    "tta",
    None,
    [str(number) for number in TTA],
    "Predictions of an image that are averaged, flipped (4) and turned (8); default: the model's.",
)
_SHARD = flags.DEFINE_string("shard", None, "Only this share of the images, i/n with i from 0.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Predict again what is done already.")
_TILE = flags.DEFINE_integer("tile", TILE, "Longest side that is not cut into tiles, pixels.")
_HALO = flags.DEFINE_integer("halo", HALO, "Context of a tile that is thrown away, pixels.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Threads that label and write.", lower_bound=1)
_READERS = flags.DEFINE_integer("readers", 2, "Threads that read.", lower_bound=1)
_COMPUTE_DTYPE = flags.DEFINE_enum(
    "compute_dtype",
    "float32",
    ["float32", "bfloat16"],
    "Precision of the network; h and all scores are of float32.",
)


def main() -> int:
    """Predict what the flags name; 1 if any image failed."""
    configure_jax()
    path = model_folder(_needed(_MODEL))
    tta = None if _TTA.value is None else int(_TTA.value)
    if tta is not None and _FROM_MAPS.value:
        raise ValueError("--tta averages what the network says; --from_maps does without it")
    model = load_model(path, compute_dtype=jnp.dtype(_COMPUTE_DTYPE.value), tta=tta)
    model.info = _with_flags(model.info)
    # Names of files may be no text.
    cast(Any, sys.stdout).reconfigure(errors="backslashreplace")
    job = _job(path, model.info)
    sources, unused = _sources(model.info)
    if _SHARD.value:
        sources = shard(sources, _SHARD.value)
    share = _SHARD.value and _SHARD.value.replace("/", "-of-")
    with locked(job.folder, "choose another --out", share=share):
        todo = [s for s in sources if _OVERWRITE.value or not job.is_done(s)]
        job.check_free(todo, overwrite=_OVERWRITE.value)
        job.prepare()
        print(f"{len(sources)} images, {len(sources) - len(todo)} done already{told(unused)}")
        return _predict(todo, model, job)


def _sources(info: ModelInfo) -> tuple[Sequence[ImageSource], Sequence[Path]]:
    """The images to predict, or the maps to label anew; and the files that are not used."""
    found = FoundSources([], [])
    if _INPUT.value or not _FROM_MAPS.value:
        inputs = split_inputs(_needed(_INPUT))
        roles = parse_roles(_CHANNELS.value) if _CHANNELS.value else roles_of(info.channels)
        layout = load_layout(_LAYOUT.value) if _LAYOUT.value else None
        found = find_sources(inputs, roles, layout=layout, exclude=_EXCLUDE.value)
    if not _FROM_MAPS.value:
        return found.images, found.unused
    return find_maps(Path(_FROM_MAPS.value), info, found.images), found.unused


def _predict(sources: Sequence[ImageSource], model: Model, job: Job) -> int:
    began, failed, num_done = time.perf_counter(), [], 0
    pace = Rate(len(sources))
    outcomes = predict_all(
        sources,
        model,
        job,
        tile=_TILE.value,
        halo=_HALO.value,
        num_readers=_READERS.value,
        num_workers=_WORKERS.value,
    )
    with tqdm(total=len(sources), unit="image", disable=None) as bar:
        for outcome in outcomes:
            if outcome.error is None:
                num_done += 1
            else:
                failed.append(outcome)
                bar.write(f"failed: {_reason(outcome)}", file=sys.stderr)
                if flags.FLAGS.debug and outcome.error is not None:
                    traceback.print_exception(outcome.error)
            bar.set_postfix_str(job.stopwatch.shares(), refresh=False)
            bar.update()
            line = pace.line(num_done + len(failed))
            if line and bar.disable:
                print(line, file=sys.stderr, flush=True)
    seconds = time.perf_counter() - began
    if sources:
        shares = job.stopwatch.shares()
        print(f"{num_done} images in {seconds:.1f} s, {num_done / seconds:.3g} images/s ({shares})")
    page = _write_page(job, failed) if "overlay" in job.outputs else True
    if not failed:
        return 0 if page else 1
    left = len(sources) - num_done - len(failed)
    print(f"error: {len(failed)} images failed:", file=sys.stderr)
    for outcome in failed:
        print(f"  {_reason(outcome)}", file=sys.stderr)
    if any(outcome.is_disk_full for outcome in failed):
        rest = f", and {left} images were not begun" if left else ""
        remedy = "make room and run again, what is done is skipped"
        print(f"the disk is full{rest}: {remedy}", file=sys.stderr)
    return 1


def _write_page(job: Job, failed: Sequence[Outcome]) -> bool:
    """Write the page of all images; whether that went well."""
    faults = {outcome.name: _reason(outcome) for outcome in failed}
    try:
        print(write_contact_sheet(job.folder, read_records(job.folder), faults))
    except (OSError, ValueError) as error:
        print(f"error: the page is not written: {error}", file=sys.stderr)
        return False
    return True


def _reason(outcome: Outcome) -> str:
    error = outcome.error
    if outcome.is_disk_full:
        return f"{outcome.name}: no space left in {_OUT.value}"
    text = " ".join(str(error).split())
    if not isinstance(error, ValueError | OSError | LookupError | MemoryError):
        text = f"{type(error).__name__}: {text} (--debug shows where)"
    return text if outcome.name in text else f"{outcome.name}: {text}"


def _needed(flag: flags.FlagHolder[Any]) -> Any:
    if not flag.value:
        raise ValueError(f"--{flag.name}=… is needed; see --help")
    return flag.value


def _job(path: Path, info: ModelInfo) -> Job:
    with_images = bool(_INPUT.value or not _FROM_MAPS.value)
    outputs = outputs_of(info, _OUTPUTS.value, with_images=with_images)
    if info.task.has_distance and info.postprocessing.h is None:
        raise ValueError(f"{path}: no marker contrast is stored; give --h=…")
    maps = Path(_FROM_MAPS.value).absolute() if _FROM_MAPS.value else None
    dtype = _COMPUTE_DTYPE.value
    parameters = (_TILE.value, _HALO.value, dtype, _CHANNELS.value, str(maps))
    folder = Path(_needed(_OUT))
    write = functools.partial(write_outputs, folder, info, outputs)
    files = functools.partial(files_of_image, info, outputs)
    return Job(folder, info, outputs, fingerprint(path, info, *parameters), write, files)


def _with_flags(info: ModelInfo) -> ModelInfo:
    """The model's description, with what the flags say of post-processing."""
    given = {
        flag.name: flag.value
        for flag in (_H, _SIGMA, _THRESHOLD, _MIN_SIZE, _FILL_HOLES, _KEEP_UNMARKED)
        if flag.value is not None
    }
    options = dataclasses.replace(info.postprocessing, **given)
    binning = _BIN.value or info.binning
    return dataclasses.replace(info, postprocessing=options, binning=binning)


run = command(main)

if __name__ == "__main__":
    run()
