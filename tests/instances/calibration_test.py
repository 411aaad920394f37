import numpy as np
import pytest
from scipy import ndimage

from isl_jax.instances.calibration import calibrate_h
from isl_jax.instances.matching import average_precision
from isl_jax.instances.watershed import DEFAULT_H, label_instances


def annotated(seed):
    """Touching blocks with flat, noisy maps, as a network predicts them."""
    rng = np.random.default_rng(seed)
    truth = np.arange(1, 10).reshape(3, 3).repeat(16, 0).repeat(16, 1)
    ramp = 8 - np.abs(np.arange(48) % 16 - 7.5)
    distance = 8 * np.minimum.outer(ramp, ramp)
    distance += ndimage.gaussian_filter(rng.standard_normal(truth.shape), 1) * 6
    return distance.astype(np.float32), np.ones(truth.shape, bool), truth


def score(images, h):
    return np.mean([average_precision(t, label_instances(d, s, h=h)).mean() for d, s, t in images])


def test_calibrated_h_is_never_worse_than_the_default():
    images = [annotated(seed) for seed in range(3)]
    h = calibrate_h(*zip(*images, strict=True))
    assert score(images, h) >= score(images, DEFAULT_H)
    assert score(images, h) > 0.9 > score(images, DEFAULT_H)
    assert isinstance(h, float)


def test_the_default_is_a_candidate_of_its_own():
    images = [annotated(0)]
    assert calibrate_h(*zip(*images, strict=True), candidates=[200], default=30) == 30


def test_of_equally_good_values_the_middle_one_is_taken():
    distance = np.zeros((5, 9), np.float32)
    distance[2, 1:4] = distance[2, 5:8] = 100
    truth = np.zeros((5, 9), int)
    truth[2, 1:4], truth[2, 5:8] = 1, 2
    case = [distance], [distance > 0], [truth]
    assert calibrate_h(*case, candidates=[10, 20, 30, 40, 50], default=20) == 30


@pytest.mark.parametrize("counts", [(0, 0, 0), (1, 1, 2)])
def test_counts_of_images_must_agree(counts):
    image = np.zeros((4, 4), np.float32)
    lists = [[image] * count for count in counts]
    with pytest.raises(ValueError, match="same number of each"):
        calibrate_h(*lists)
