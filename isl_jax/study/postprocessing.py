"""How the maps of a trained run are read: as the settings say, the rest as suits its own images."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.data.store import Dataset, Field
from isl_jax.inference.augmented import TTA
from isl_jax.inference.info import PostProcessing
from isl_jax.inference.model import load_model
from isl_jax.instances.calibration import calibrate_instances, calibrate_semantic

# Annotated fields that are calibrated on; more change the choice little and cost time.
_MOST_FIELDS = 10
_READ_WITHOUT_DISTANCE = ("threshold", "min_size")
_READ = ("h", "sigma", *_READ_WITHOUT_DISTANCE)


@dataclasses.dataclass(frozen=True)
class InstanceSettings:
    """How maps are read: numbers, or `auto`, calibrated on the annotated training images.

    Marker contrast `h` in map units, `sigma` of the Gaussian before in pixels, `threshold` of the
    foreground probability, `min_size` of an object in pixels. `tta` is how often every image is
    predicted, flipped and turned (`inference.augmented`).
    """

    h: str
    sigma: str = "0"
    threshold: str = "0.5"
    min_size: str = "0"
    tta: int = 1

    def __post_init__(self) -> None:
        for name in _READ:
            try:
                PostProcessing(**self._numbers((name,)))
            except ValueError as error:
                raise ValueError(
                    f"instances.{name}={getattr(self, name)!r} is neither auto nor a number that "
                    f"will do ({error})"
                ) from None
        if self.tta not in TTA:
            told = ", ".join(map(str, TTA))
            raise ValueError(f"instances.tta={self.tta}: choose one of {told}")

    def given(self, *, has_distance: bool) -> dict[str, Any]:
        """What is given as a number, by name, of what a network with these maps needs."""
        return self._numbers(_READ if has_distance else _READ_WITHOUT_DISTANCE)

    def automatic(self, *, has_distance: bool) -> list[str]:
        """Names of what is calibrated."""
        names = _READ if has_distance else _READ_WITHOUT_DISTANCE
        return [name for name in names if getattr(self, name) == "auto"]

    def _numbers(self, names: tuple[str, ...]) -> dict[str, Any]:
        texts = {name: getattr(self, name) for name in names}
        return {
            name: int(text) if name == "min_size" else float(text)
            for name, text in texts.items()
            if text != "auto"
        }


def calibrated(
    settings: InstanceSettings, workdir: Path, dataset: Dataset, fields: tuple[Field, ...]
) -> PostProcessing:
    """From maps to labels for the model in `workdir`, which was trained on the annotated `fields`.

    What is `auto` is calibrated on these fields, predicted whole, in float32 and augmented as
    whatever is predicted with it later. They were trained on: their scores flatter, but the choice
    needs no more annotation.
    """
    model = load_model(workdir)
    options, task = model.info.postprocessing, model.info.task
    if task.is_stain:
        return options
    given = settings.given(has_distance=task.has_distance)
    missing = settings.automatic(has_distance=task.has_distance)
    if not missing:
        return dataclasses.replace(options, **given)
    chosen = fields[:_MOST_FIELDS]
    normalisation = model.info.normalisation
    images = (dataset.standardised(field.name, normalisation)[None] for field in chosen)
    found = [model.predict_standardised(image, labels=False)[0] for image in images]
    distances = [one.distance for one in found if one.distance is not None]
    probabilities = [one.probability for one in found if one.probability is not None]
    truths = [np.asarray(dataset.labels(field.name)) for field in chosen]
    options_there = {"given": given, "ignored": [dataset.ignored(field.name) for field in chosen]}
    if task.has_distance:
        reading = calibrate_instances(distances, probabilities, truths, **options_there)
    else:
        reading = calibrate_semantic(probabilities, truths, **options_there)
    told = ", ".join(f"{name} = {getattr(reading, name):g}" for name in missing)
    print(f"{told}, calibrated on {len(chosen)} annotated training image(s)")
    calibrated_values = {name: getattr(reading, name) for name in missing}
    return dataclasses.replace(options, **given, **calibrated_values)
