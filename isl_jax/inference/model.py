"""A trained model as a folder that describes itself, and its use on images of any size."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from isl_jax.data.normalisation import Levels
from isl_jax.inference.forward import Forward, TileTooLargeError
from isl_jax.inference.info import ModelInfo, NetworkInfo, PostProcessing, read_info, write_info
from isl_jax.inference.labelling import label_maps
from isl_jax.inference.large import RepeatedPlane, Scratch, release
from isl_jax.inference.stored import model_folder, read_variables, write_variables
from isl_jax.inference.tiling import (
    BLEND,
    HALO,
    TILE,
    StandardisedImage,
    blend_row,
    blend_rows,
    measured,
    padded,
    plan,
)
from isl_jax.models.heads import build_network
from isl_jax.models.weights import WEIGHTS

__all__ = ["Model", "ModelInfo", "NetworkInfo", "Prediction", "load_model", "save_model"]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of one image; what it does not predict is None.

    `stain` float32 `[H, W]`, 0..1 over the stain's scale; `probability` float32 `[H, W]` 0..1;
    `distance` float32 `[H, W]` in map units; `labels` int32 `[H, W]`, 0 is background. Those of
    large images are memory maps.
    """

    stain: np.ndarray | None = None
    probability: np.ndarray | None = None
    distance: np.ndarray | None = None
    labels: np.ndarray | None = None


class Model:
    """A network with its weights and the meaning of its outputs."""

    def __init__(
        self, info: ModelInfo, variables: dict[str, Any], *, compute_dtype: Any = jnp.float32
    ) -> None:
        self.info = info
        self.variables = variables
        network = build_network(
            out_channels=info.network.out_channels,
            head=info.network.head,
            encoder=info.network.encoder,
            compute_dtype=compute_dtype,
        )
        self._raw = Forward(network, variables)
        self._maps = Forward(network, variables, task=info.task, tta=info.tta)
        self._largest_tile = TILE

    def check(self) -> None:
        """ValueError if the weights are not those of the network that `info` describes."""
        self._maps.check(self.info.network.in_channels)

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Raw network outputs `[B, H, W, K]` float32 of standardised `images` `[B, H, W, C]`."""
        return self._raw(images)

    def predict(
        self,
        image: Any,
        *,
        labels: bool = True,
        tile: int = TILE,
        halo: int = HALO,
        scratch: Scratch | None = None,
    ) -> Any:
        """Predict raw images of any size and dtype: a `Prediction`, or a list of them.

        image: `[C, H, W]`, or `[H, W]` when the model was trained on one plane (a model trained on
        one plane repeated, `phase, phase, phase`, takes that plane alone, too); anything with a
        shape that can be sliced, memory maps included. Several: `[B, C, H, W]`, or a list of
        images, whose sizes may differ. Sides longer than `tile` are cut with `halo` pixels of
        context (`tiling`). `labels=False` leaves out instance labels. Maps of more than
        `scratch.max_pixels` go to files. Raises ValueError when the planes are not those that the
        model was trained on, or hold NaN.
        """
        many = isinstance(image, list | tuple) or len(np.shape(image)) == 4
        images = [self.prepare(item) for item in (image if many else [image])]
        scratch = scratch or Scratch()
        found = [
            interpret(self.info, maps, labels=labels, scratch=scratch)
            for maps in self.maps_of(images, tile=tile, halo=halo, scratch=scratch)
        ]
        return found if many else found[0]

    def prepare(self, image: Any) -> StandardisedImage:
        """Check a raw image and measure its levels, in bands of rows; reads all pixels once."""
        channels = self.info.channels
        planes = image if hasattr(image, "shape") else np.asarray(image)
        if len(planes.shape) == 2:
            planes = np.asarray(planes)[None]
        repeated = len(planes.shape) == 3 and planes.shape[0] == 1 and len(set(channels)) == 1
        if not repeated and (len(planes.shape) != 3 or planes.shape[0] != len(channels)):
            raise ValueError(
                f"image of shape {tuple(planes.shape)}: this model takes [C, H, W] with "
                f"C = {len(channels)} ({', '.join(channels)})"
            )
        if 0 in planes.shape:
            raise ValueError(f"image of shape {tuple(planes.shape)} has no pixels")
        levels = measured(planes, self.info.normalisation)
        if not np.isfinite([levels.mean, levels.spread]).all():
            raise ValueError("the image holds NaN or infinite values; repair or leave it out")
        if repeated:
            planes, levels = RepeatedPlane(planes, len(channels)), levels.repeated(len(channels))
        return StandardisedImage(planes, levels)

    def batch_size(self, shape: tuple[int, ...]) -> int:
        """Images of `shape` (H, W, C) that go through the network together."""
        return self._maps.batch_size(shape)

    def maps_of(
        self,
        images: Sequence[StandardisedImage],
        *,
        tile: int = TILE,
        halo: int = HALO,
        scratch: Scratch | None = None,
    ) -> Iterator[np.ndarray]:
        """Maps `[K, H, W]` float32 of images of `prepare`, in order: what needs the device.

        Single tiles of one size share batches.
        """
        single = [max(map(padded, image.image.shape[1:])) <= tile for image in images]
        if len(images) > 1 and all(single):
            plans = [plan(*i.image.shape[1:], tile=tile, halo=halo)[0][0] for i in images]
            tiles = (image.tile(one) for image, one in zip(images, plans, strict=True))
            for image, outputs in zip(images, self._maps.stream(tiles), strict=True):
                _, height, width = image.image.shape
                yield np.ascontiguousarray(np.moveaxis(outputs[:height, :width], -1, 0))
            return
        for image in images:
            yield self._tiled(image, tile, halo, scratch or Scratch())

    def _tiled(
        self, image: StandardisedImage, tile: int, halo: int, scratch: Scratch
    ) -> np.ndarray:
        _, height, width = image.image.shape
        while True:
            size = min(tile, self._largest_tile)
            rows = plan(height, width, tile=size, halo=halo, blend=min(BLEND, halo))
            maps = scratch.empty((self.info.network.out_channels, height, width), np.float32)
            outputs = self._maps.stream(image.tile(one) for row in rows for one in row)
            bands = (blend_row(row, outputs, width) for row in rows)
            try:
                for first, band in blend_rows([row[0].rows for row in rows], bands):
                    maps[:, first : first + band.shape[1]] = band
                    release(maps)
                    release(image.image)
                return maps
            except TileTooLargeError:
                # Half the pixels, and with them half the memory.
                smaller = padded(int(min(size, max(height, width)) / 1.5))
                if smaller < 2 * halo + 3 * BLEND:
                    raise
                self._largest_tile = smaller

    def predict_standardised(self, images: np.ndarray, *, labels: bool = True) -> list[Prediction]:
        """Predict images `[B, H, W, C]` float32 that are normalised already.

        `labels=False` leaves out the instance labels, which cost time of their own.
        """
        images = np.asarray(images, np.float32)
        if max(map(padded, images.shape[1:3])) <= self._largest_tile:
            maps = np.moveaxis(self._maps(images), -1, 1)
        else:
            as_they_are = Levels(np.zeros(images.shape[-1]), np.ones(images.shape[-1]))
            prepared = [StandardisedImage(np.moveaxis(i, -1, 0), as_they_are) for i in images]
            maps = list(self.maps_of(prepared))
        return [interpret(self.info, np.ascontiguousarray(one), labels=labels) for one in maps]


def interpret(
    info: ModelInfo, maps: np.ndarray, *, labels: bool = True, scratch: Scratch | None = None
) -> Prediction:
    """What maps `[K, H, W]` of a model mean, and the labels that follow from them.

    Cells need a marker contrast: without it there are no labels.
    """
    low, high = info.stain_scale.limits if info.stain_scale else (-np.inf, np.inf)
    if np.isfinite(high):
        maps = np.clip(maps, low, high, out=maps if maps.flags.writeable else None)
        release(maps)
    found = Prediction(**dict(zip(info.task.map_names, maps, strict=True)))
    if info.task.is_stain or not labels:
        return found
    if info.task.has_distance and info.postprocessing.h is None:
        return found
    instances = label_maps(maps[-1], found.distance, options=info.postprocessing, scratch=scratch)
    return dataclasses.replace(found, labels=instances)


def save_model(folder: Path, info: ModelInfo, variables: dict[str, Any]) -> None:
    """Write `model.json` and `weights.safetensors`; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_variables(folder / WEIGHTS, variables)
    write_info(folder, info)


def set_postprocessing(folder: Path, options: PostProcessing) -> None:
    """Store in a model folder how its maps are read."""
    info = read_info(folder / "model.json")
    write_info(folder, dataclasses.replace(info, postprocessing=options))


def load_model(
    path: Path | str, *, compute_dtype: Any = jnp.float32, tta: int | None = None
) -> Model:
    """Load a model from its folder, or from the workdir of the run that made it.

    `tta` takes the place of the model's own. Raises FileNotFoundError or ValueError naming the file
    that is missing, damaged or too new.
    """
    folder = model_folder(path)
    info = read_info(folder / "model.json")
    info = info if tta is None else dataclasses.replace(info, tta=tta)
    weights = folder / WEIGHTS
    model = Model(info, read_variables(weights), compute_dtype=compute_dtype)
    try:
        model.check()
    except ValueError as error:
        raise ValueError(f"{weights}: {error}; copy the model again") from error
    return model
