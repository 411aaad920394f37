"""What the step Predict does, without Qt: images to maps, maps to labels, labels to files."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.data.binning import bin_average
from isl_jax.inference.expansion import split_inputs
from isl_jax.inference.folder import Record
from isl_jax.inference.info import ModelInfo, PostProcessing
from isl_jax.inference.job import Job, fingerprint
from isl_jax.inference.large import OpenedImage, Scratch
from isl_jax.inference.model import Model, Prediction, interpret, load_model
from isl_jax.inference.opening import roles_of
from isl_jax.inference.sources import FoundSources, find_sources
from isl_jax.inference.stored import model_folder
from isl_jax.instances.watershed import DEFAULT_H
from isl_jax.launch.configuration import configure_jax
from isl_jax.locks import locked
from isl_jax.outputs.catalogue import files_of_image, outputs_of, write_outputs
from isl_jax.study.experiment import unfinished_model
from isl_jax.task import NORMALISED_PEAK
from isl_jax.viewer.commands import CommandLine, command_line
from isl_jax.viewer.dropped import place_of
from isl_jax.viewer.layers import Place
from isl_jax.viewer.selection import Shown

# Of a map in pixels, the paper's.
_PAPER_H = 10.0
# Pixels a side that are predicted while a run trains.
_PREVIEW = 768


def find_images(text: str, info: ModelInfo) -> FoundSources:
    """The images that `--input=text` means for a model; raises as `find_sources` does."""
    return find_sources(split_inputs(text), roles_of(info.channels))


def planes_of(shown: Sequence[Shown], channels: Sequence[str]) -> np.ndarray:
    """Planes `[C, H, W]` for a model, of images that are `[H, W]`, or of one that has them all.

    Images are told by their names where each ends with that of a channel, or else taken in order;
    one plane is enough for a model that was trained on one, repeated. Raises ValueError that names
    what was found and what the model takes.
    """
    wanted = list(dict.fromkeys(channels))
    takes = f"the model takes {len(channels)} planes ({', '.join(channels)})"
    if not shown:
        raise ValueError(f"select the image in the layer list; {takes}")
    if coloured := [image.name for image in shown if image.is_colour]:
        raise ValueError(f"layer {coloured[0]!r} is in colour; split it into channels first")
    planes = [plane for image in shown for plane in _planes(image.pixels)]
    shapes = {plane.shape for plane in planes}
    if len(shapes) > 1:
        told = ", ".join(f"{image.name} {image.pixels.shape[-2:]}" for image in shown)
        raise ValueError(f"the selected layers differ in size ({told}); select those of one image")
    by_name = [[i for i in shown if i.pixels.ndim == 2 and _is_called(i.name, c)] for c in wanted]
    if all(len(found) == 1 for found in by_name):
        planes = [found[0].pixels for found in by_name]
    if len(planes) == len(channels):
        return np.stack(planes)
    if len(planes) == len(wanted):
        order = {channel: plane for channel, plane in zip(wanted, planes, strict=True)}
        return np.stack([order[channel] for channel in channels])
    raise ValueError(f"{len(planes)} planes are selected, {takes}: select as many layers, in order")


def _planes(pixels: np.ndarray) -> list[np.ndarray]:
    return [pixels] if pixels.ndim == 2 else list(pixels.reshape(-1, *pixels.shape[-2:]))


def _is_called(name: str, channel: str) -> bool:
    return re.search(rf"(^|[\W_]){re.escape(channel)}$", name, re.IGNORECASE) is not None


def opened(
    shown: Sequence[Shown], info: ModelInfo, spacing: tuple[float, float] | None = None
) -> OpenedImage:
    """Layers as the model wants an image: its planes, averaged over blocks as at the training.

    `spacing` (y, x) of the layers in µm, if it is known.
    """
    planes = planes_of(shown, info.channels)
    if info.binning > 1:
        planes = np.stack([bin_average(plane, info.binning) for plane in planes])
    paths = tuple(dict.fromkeys(image.path for image in shown if image.path))
    name = _common_name([image.name for image in shown], info.channels)
    scaled = spacing and (spacing[0] * info.binning, spacing[1] * info.binning)
    return OpenedImage(name, planes, paths, scaled, info.binning)


def _common_name(names: Sequence[str], channels: Sequence[str]) -> str:
    """What outputs are called: the first layer's name without its channel, fit for a file."""
    name = names[0]
    for channel in channels:
        if _is_called(name, channel) and len(name) > len(channel):
            name = name[: -len(channel)].rstrip(" _-.")
    return re.sub(r"[^\w.\- ]", "_", name).strip() or "image"


def first_options(info: ModelInfo) -> PostProcessing:
    """How a model's maps are read at first: as it says; cells have an h, calibrated or not."""
    options = info.postprocessing
    if info.task.has_distance and options.h is None:
        is_normalised = info.task.distance_scale == "normalised"
        options = dataclasses.replace(options, h=DEFAULT_H if is_normalised else _PAPER_H)
    return options


def highest_h(info: ModelInfo) -> float:
    """Beyond this marker contrast there is nothing to choose."""
    return NORMALISED_PEAK if info.task.distance_scale == "normalised" else 100.0


@dataclasses.dataclass(frozen=True)
class Predicted:
    """An image with the maps `[K, H, W]` that a model made of it."""

    info: ModelInfo
    image: OpenedImage
    maps: np.ndarray

    def read(self, options: PostProcessing) -> Prediction:
        """The maps, and the labels that they give by these options; the network is not asked."""
        return interpret(dataclasses.replace(self.info, postprocessing=options), self.maps)


def predict(model: Model, image: OpenedImage) -> Predicted:
    """Send an opened image through the network; ValueError for one that does not fit."""
    assert image.planes is not None
    (maps,) = model.maps_of([model.prepare(image.planes)], scratch=Scratch())
    return Predicted(model.info, image, np.asarray(maps))


def load(path: str) -> Model:
    """Load a model, of which compiled programs are kept between starts of napari."""
    configure_jax()
    return load_model(path)


def predict_field(workdir: Path, name: str) -> tuple[int, Predicted, Place]:
    """What a run that still trains says of a field, by its newest checkpoint: step, maps, place.

    Of large fields the middle is predicted, so that the training is not held up for long.
    """
    configure_jax()
    step, model, dataset = unfinished_model(workdir)
    whole = dataset.standardised(name, model.info.normalisation)
    top, left = (max(0, side - _PREVIEW) // 2 for side in whole.shape[:2])
    window = whole[top : top + _PREVIEW, left : left + _PREVIEW]
    (found,) = model.predict_standardised(window[None], labels=False)
    maps = np.stack([getattr(found, kind) for kind in model.info.task.map_names])
    image = OpenedImage(name, None, ())
    return step, Predicted(model.info, image, maps), place_of(dataset).at(top, left)


@dataclasses.dataclass(frozen=True)
class Request:
    """What isl-predict is asked for: model, images, where to, which outputs, how maps are read."""

    model: str
    images: str
    out: str
    outputs: tuple[str, ...]
    options: PostProcessing

    def command(self, info: ModelInfo | None) -> CommandLine:
        """The command line; of the options those that are not the model's own."""
        changed: Mapping[str, Any] = {}
        if info is not None and not info.task.is_stain:
            own = dataclasses.asdict(info.postprocessing)
            now = dataclasses.asdict(self.options)
            changed = {name: _number(now[name]) for name in now if now[name] != own[name]}
        given = {"model": self.model or "MODEL", "input": self.images or "IMAGES"}
        given |= {"out": self.out or "OUT", "outputs": ",".join(self.outputs)}
        return command_line("predict", {**given, **changed})

    def save(self, found: Predicted, prediction: Prediction, *, corrected: bool = False) -> Record:
        """Write the outputs of one image as the command does.

        What has been `corrected` by hand gets a name of its own, so that no later command takes
        its place. Raises ValueError for outputs that there are not, and where files of others
        would be replaced.
        """
        info = dataclasses.replace(found.info, postprocessing=self.options)
        outputs = outputs_of(info, self.outputs or None)
        if not self.out:
            raise ValueError("choose the folder to save into")
        folder, image = Path(self.out), found.image
        if corrected:
            image = dataclasses.replace(image, name=f"{image.name}_corrected")
        write = functools.partial(write_outputs, folder, info, outputs)
        files = functools.partial(files_of_image, info, outputs)
        print_ = fingerprint(model_folder(self.model), info, "corrected" if corrected else "viewer")
        job = Job(folder, info, outputs, print_, write, files)
        with locked(folder, "choose another folder"):
            job.check_free([_OfImage(image)])
            job.prepare()
            return job.store(image, prediction)


def _number(value: Any) -> Any:
    # A flag that is off has to be said: `--fill_holes=False`.
    return str(value) if isinstance(value, bool | int) else f"{value:g}"


@dataclasses.dataclass(frozen=True)
class _OfImage:
    """An opened image as a job knows its sources."""

    image: OpenedImage

    @property
    def name(self) -> str:
        return self.image.name

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.image.paths or (Path(self.image.name),)

    @property
    def origins(self) -> tuple[Path, ...]:
        return self.paths

    def open(self, scratch: Scratch, *, binning: int = 1) -> OpenedImage:
        return self.image
