"""Random changes of training crops, made on the device inside the compiled step."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What may be changed; the paper changes nothing. Hashable: part of the compiled step.

    `flips`: one of the 8 symmetries of the square for each crop, its image, target and weight
    alike. `intensity`: standard deviation of a log-normal gain and of an offset of each
    standardised image, the same for all channels.
    """

    flips: bool = False
    intensity: float = 0.0

    def __bool__(self) -> bool:
        return self.flips or self.intensity > 0


NO_AUGMENTATION = Augmentation()


def augment(
    key: jax.Array, batch: Mapping[str, jax.Array], augmentation: Augmentation
) -> dict[str, jax.Array]:
    """Change the square crops of a batch `[B, S, S, …]` at random, a function of `key` alone."""
    changed = dict(batch)
    count = batch["image"].shape[0]
    orientation_key, intensity_key = jax.random.split(key)
    if augmentation.flips:
        # Transposing or not, then mirroring either axis or not, are the 8 symmetries.
        choices = jax.random.bernoulli(orientation_key, shape=(3, count, 1, 1, 1))
        for name, array in changed.items():
            array = jnp.where(choices[0], array.swapaxes(1, 2), array)
            array = jnp.where(choices[1], array[:, ::-1], array)
            changed[name] = jnp.where(choices[2], array[:, :, ::-1], array)
    if augmentation.intensity:
        draws = augmentation.intensity * jax.random.normal(intensity_key, (2, count, 1, 1, 1))
        changed["image"] = changed["image"] * jnp.exp(draws[0]) + draws[1]
    return changed
