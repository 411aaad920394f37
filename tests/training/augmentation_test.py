"""Augmentation: one symmetry for a crop and all that belongs to it, a function of its key."""

import jax
import numpy as np
import pytest

from isl_jax.training.augmentation import NO_AUGMENTATION, Augmentation, augment


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    channels = {"image": 3, "target": 2, "weight": 1}
    return {name: rng.random((48, 6, 6, n)).astype(np.float32) for name, n in channels.items()}


def symmetries(array):
    """The 8 symmetries of a square array [S, S, C]."""
    turned = [np.rot90(array, k) for k in range(4)]
    return turned + [np.fliplr(a) for a in turned]


def test_every_crop_is_turned_as_a_whole_and_every_symmetry_occurs(batch):
    changed = jax.device_get(augment(jax.random.key(3), batch, Augmentation(flips=True)))
    chosen = []
    for row in range(48):
        fits = [
            all(
                np.array_equal(symmetries(batch[name][row])[k], changed[name][row])
                for name in batch
            )
            for k in range(8)
        ]
        assert sum(fits) == 1
        chosen.append(fits.index(True))
    assert set(chosen) == set(range(8))


def test_intensity_is_a_gain_and_an_offset_of_the_image_alone(batch):
    changed = augment(jax.random.key(3), batch, Augmentation(intensity=0.2))
    gains = []
    for before, after in zip(batch["image"], np.asarray(changed["image"]), strict=True):
        gain, offset = np.polyfit(before.ravel(), after.ravel(), 1)
        np.testing.assert_allclose(gain * before + offset, after, atol=1e-5)
        gains.append(np.log(gain))
    assert 0.12 < np.std(gains) < 0.3
    for name in ("target", "weight"):
        np.testing.assert_array_equal(changed[name], batch[name])


def test_the_key_decides(batch):
    everything = Augmentation(flips=True, intensity=0.2)
    one, same, other = (augment(jax.random.key(k), batch, everything) for k in (1, 1, 2))
    np.testing.assert_array_equal(one["image"], same["image"])
    assert not np.array_equal(one["image"], other["image"])
    assert everything
    assert not NO_AUGMENTATION
