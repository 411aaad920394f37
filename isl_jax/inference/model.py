"""A trained model as a folder that describes itself, and its use on images."""

import dataclasses
import datetime
import functools
import json
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from skimage import measure

from isl_jax.data.normalisation import StainScale, plane_statistics, standardise
from isl_jax.instances.watershed import label_instances
from isl_jax.models.heads import build_network
from isl_jax.training.objectives import Objective

SCHEMA_VERSION = 1
CITATION = (
    "Bonte, Philbert, Coleno, Bertrand, Imbert, Walter: Learning with minimal effort: leveraging "
    "in silico labeling for cell and nucleus segmentation, arXiv 2301.03914 (2023)"
)


@dataclasses.dataclass(frozen=True)
class NetworkInfo:
    """Architecture: what `build_network` needs to make it again."""

    encoder: str
    head: Literal["none", "paper", "reference"]
    out_channels: int
    in_channels: int


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """All that is needed to use the weights, as stored in `model.json`.

    `channels` are the input planes in order, each standardised by its own mean and standard
    deviation. `objective` tells what the outputs mean. `stain` and `stain_scale` (raw intensities
    that 0 and 1 stand for) belong to stain predictions; `distance_scale` (`normalised`, `pixels`),
    `distance_unit` (map units that an output of 1 stands for) and `h` (in map units, the contrast
    of a marker) to instances.
    """

    study: str
    stage: Literal["pretrain", "segment"]
    network: NetworkInfo
    objective: Objective
    channels: tuple[str, ...]
    stain: str | None = None
    stain_scale: StainScale | None = None
    distance_scale: str = "normalised"
    distance_unit: float = 255.0
    h: float | None = None
    training: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON-like description, with the schema, the versions and the citation."""
        return {
            "schema_version": SCHEMA_VERSION,
            **dataclasses.asdict(self),
            "normalisation": "each plane: (x - mean) / max(std, 1/sqrt(pixels))",
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": {name: metadata.version(name) for name in ("isl-jax", "jax", "flax")},
            "citation": CITATION,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "ModelInfo":
        """Inverse of `to_json`."""
        values = {f.name: stored[f.name] for f in dataclasses.fields(cls)}
        values["network"] = NetworkInfo(**values["network"])
        values["objective"] = Objective(**values["objective"])
        values["channels"] = tuple(values["channels"])
        if values["stain_scale"] is not None:
            values["stain_scale"] = StainScale(**values["stain_scale"])
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of one image; what it does not predict is None.

    `stain` float32 `[H, W]`, 0..1 over the stain's scale; `probability` float32 `[H, W]` 0..1;
    `distance` float32 `[H, W]` in map units; `labels` int32 `[H, W]`, 0 is background.
    """

    stain: np.ndarray | None = None
    probability: np.ndarray | None = None
    distance: np.ndarray | None = None
    labels: np.ndarray | None = None


@functools.lru_cache(maxsize=8)
def _forward(network: nn.Module) -> Any:
    def forward(variables: Any, images: jax.Array) -> jax.Array:
        return jnp.asarray(network.apply(variables, images, train=False), jnp.float32)

    return jax.jit(forward)


class Model:
    """A network with its weights and the meaning of its outputs."""

    def __init__(
        self, info: ModelInfo, variables: dict[str, Any], *, compute_dtype: Any = jnp.float32
    ) -> None:
        self.info = info
        self.variables = variables
        self._network = build_network(
            out_channels=info.network.out_channels,
            head=info.network.head,
            encoder=info.network.encoder,
            compute_dtype=compute_dtype,
        )
        self._on_device: Any = None

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Raw network outputs `[B, H, W, K]` float32 of standardised `images` `[B, H, W, C]`."""
        if self._on_device is None:
            self._on_device = jax.device_put(self.variables)
        return np.asarray(_forward(self._network)(self._on_device, jnp.asarray(images)))

    def predict_standardised(self, images: np.ndarray, *, labels: bool = True) -> list[Prediction]:
        """Predict images `[B, H, W, C]` float32 that are standardised already.

        `labels=False` leaves out the instance labels, which cost time of their own.
        """
        return [self._interpret(output, labels) for output in self.outputs(images)]

    def predict(self, image: np.ndarray) -> Prediction:
        """Predict one raw image `[C, H, W]`, or `[H, W]` when the model was trained on one plane.

        A model trained on one plane repeated (`phase, phase, phase`) takes that plane alone, too.
        Raises ValueError when the planes are not those that the model was trained on.
        """
        channels = self.info.channels
        planes = np.asarray(image)
        if planes.ndim == 2:
            planes = planes[None]
        if planes.ndim == 3 and len(planes) == 1 and len(set(channels)) == 1:
            planes = np.repeat(planes, len(channels), axis=0)
        if planes.ndim != 3 or len(planes) != len(channels):
            raise ValueError(
                f"image of shape {np.shape(image)}: this model takes [C, H, W] with "
                f"C = {len(channels)} ({', '.join(channels)})"
            )
        statistics = [plane_statistics(plane) for plane in planes]
        standardised = standardise(
            np.moveaxis(planes, 0, -1),
            np.array([mean for mean, _ in statistics]),
            np.array([std for _, std in statistics]),
        )
        return self.predict_standardised(standardised[None])[0]

    def _interpret(self, output: np.ndarray, labels: bool) -> Prediction:
        info = self.info
        if info.objective.target == "stain":
            return Prediction(stain=output[..., 0])
        probability = np.asarray(info.objective.probability(jnp.asarray(output[..., -1])))
        if info.objective.target == "semantic":
            # Without a distance map, touching nuclei stay one object.
            components = np.asarray(measure.label(probability > 0.5), np.int32) if labels else None
            return Prediction(probability=probability, labels=components)
        # float32 from the network to the labels: rounding makes ties, and ties make markers.
        distance = output[..., 0] * np.float32(info.distance_unit)
        if not labels or info.h is None:
            return Prediction(probability=probability, distance=distance)
        instances = label_instances(distance, probability > 0.5, h=info.h)
        return Prediction(probability=probability, distance=distance, labels=instances)


def save_model(folder: Path, info: ModelInfo, variables: dict[str, Any]) -> None:
    """Write `model.json` and `weights.safetensors`; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    weights = folder / "weights.safetensors"
    temporary = weights.with_suffix(".tmp")
    temporary.write_bytes(save({k: np.ascontiguousarray(v) for k, v in flat.items()}))
    temporary.replace(weights)
    _write_info(folder, info)


def _write_info(folder: Path, info: ModelInfo) -> None:
    temporary = folder / "model.json.tmp"
    temporary.write_text(json.dumps(info.to_json(), indent=2) + "\n")
    temporary.replace(folder / "model.json")


def set_h(folder: Path, h: float) -> None:
    """Store a marker contrast (in map units) in a model folder."""
    info = ModelInfo.from_json(json.loads((folder / "model.json").read_text()))
    _write_info(folder, dataclasses.replace(info, h=h))


def load_model(path: Path | str, *, compute_dtype: Any = jnp.float32) -> Model:
    """Load a model from its folder, or from the workdir of the run that made it.

    Raises FileNotFoundError or ValueError naming the file that is missing, damaged or too new.
    """
    folder = Path(path)
    if not (folder / "model.json").exists() and (folder / "model").is_dir():
        folder = folder / "model"
    description, weights = folder / "model.json", folder / "weights.safetensors"
    for file in (description, weights):
        if not file.exists():
            raise FileNotFoundError(
                f"{file}: no such file; name a model folder or the workdir of a finished run"
            )
    try:
        stored = json.loads(description.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{description}: damaged ({error}); copy the model again") from error
    version = stored.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{description}: schema version {version}, this isl_jax reads {SCHEMA_VERSION}; "
            "install the version that wrote it (see its `versions`)"
        )
    try:
        flat = load_file(weights)
    except SafetensorError as error:
        raise ValueError(f"{weights}: damaged, cannot be read ({error}); copy it again") from error
    variables = flax.traverse_util.unflatten_dict(flat, sep="/")
    return Model(ModelInfo.from_json(stored), variables, compute_dtype=compute_dtype)
