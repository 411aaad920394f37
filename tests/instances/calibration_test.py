import numpy as np
import pytest
from scipy import ndimage

from isl_jax.instances.calibration import Reading, calibrate_instances, calibrate_semantic
from isl_jax.instances.matching import average_precision
from isl_jax.instances.watershed import DEFAULT_H, label_instances
from isl_jax.metrics import iou

AS_IT_IS = {"sigma": 0.0, "threshold": 0.5, "min_size": 0}


def annotated(seed, *, noise=6.0):
    """Touching blocks with flat, noisy maps, as a network predicts them."""
    rng = np.random.default_rng(seed)
    truth = np.arange(1, 10).reshape(3, 3).repeat(16, 0).repeat(16, 1)
    ramp = 8 - np.abs(np.arange(48) % 16 - 7.5)
    distance = 8 * np.minimum.outer(ramp, ramp)
    distance += ndimage.gaussian_filter(rng.standard_normal(truth.shape), 1) * noise
    return distance.astype(np.float32), np.ones(truth.shape, np.float32), truth


def blobs(seed):
    """Nuclei of which the network is unsure, and specks that it takes for nuclei."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((64, 64), int)
    for index, (top, left) in enumerate([(4, 4), (4, 40), (40, 20)], 1):
        truth[top : top + 14, left : left + 14] = index
    probability = 0.45 * (truth > 0)
    probability[rng.integers(0, 64, 6), rng.integers(0, 64, 6)] = 0.9
    return probability.astype(np.float32), truth


def score(images, reading):
    found = [
        label_instances(d, p > reading.threshold, h=reading.h, sigma=reading.sigma)
        for d, p, _ in images
    ]
    pairs = zip(found, (truth for *_, truth in images), strict=True)
    return np.mean([average_precision(truth, labels).mean() for labels, truth in pairs])


def test_a_calibrated_contrast_is_never_worse_than_the_default():
    images = [annotated(seed) for seed in range(3)]
    reading = calibrate_instances(*zip(*images, strict=True), given=AS_IT_IS)
    assert score(images, reading) > 0.9 > score(images, Reading())
    assert reading == Reading(h=reading.h)


def test_noisy_maps_are_smoothed_and_clean_ones_are_not():
    noisy = [annotated(seed, noise=60.0) for seed in range(2)]
    reading = calibrate_instances(*zip(*noisy, strict=True))
    plain = calibrate_instances(*zip(*noisy, strict=True), given=AS_IT_IS)
    assert reading.sigma > 0
    assert score(noisy, reading) > score(noisy, plain) + 0.03
    clean = [annotated(0, noise=0.0)]
    reading = calibrate_instances(*zip(*clean, strict=True))
    assert (reading.sigma, reading.threshold, reading.min_size) == (0.0, 0.5, 0)


def test_threshold_and_smallest_size_are_found_where_they_help():
    images = [blobs(seed) for seed in range(2)]
    probabilities, truths = zip(*images, strict=True)
    distances = [ndimage.distance_transform_edt(p > 0.3).astype(np.float32) for p in probabilities]
    reading = calibrate_instances(distances, probabilities, truths)
    assert reading.threshold < 0.45
    # At no contrast a speck is an object.
    reading = calibrate_instances(distances, probabilities, truths, given={"h": 0.0, "sigma": 0.0})
    assert reading.threshold < 0.45 and reading.min_size > 1
    reading = calibrate_semantic(probabilities, truths)
    assert reading.threshold < 0.45 and reading.min_size > 1
    for probability, truth in images:
        assert iou(probability > reading.threshold, truth > 0) > iou(probability > 0.5, truth > 0)


def test_what_is_given_stays():
    given = {"h": 7.0, "sigma": 2.5, "threshold": 0.35, "min_size": 3}
    assert calibrate_instances(*zip(annotated(0), strict=True), given=given) == Reading(**given)
    probability, truth = blobs(0)
    assert calibrate_semantic([probability], [truth], given={"threshold": 0.2}).threshold == 0.2


def test_the_default_contrast_is_a_candidate_of_its_own():
    distance = np.zeros((5, 9), np.float32)
    distance[2, 1:4] = distance[2, 5:8] = 2 * DEFAULT_H
    truth = (distance > 0) * (1 + (np.arange(9) > 4))
    case = [distance], [(distance > 0).astype(np.float32)], [truth]
    assert calibrate_instances(*case, given=AS_IT_IS, contrasts=[1e4]).h == DEFAULT_H


def test_of_equally_good_contrasts_the_middle_one_is_taken():
    distance = np.zeros((5, 9), np.float32)
    distance[2, 1:4] = distance[2, 5:8] = 100
    truth = np.zeros((5, 9), int)
    truth[2, 1:4], truth[2, 5:8] = 1, 2
    case = [distance], [(distance > 0).astype(np.float32)], [truth]
    # 100, the default, leaves no peak.
    assert calibrate_instances(*case, given=AS_IT_IS, contrasts=[10, 20, 30, 40, 50]).h == 30


@pytest.mark.parametrize("counts", [(0, 0, 0), (1, 1, 2)])
def test_counts_of_images_must_agree(counts):
    image = np.zeros((4, 4), np.float32)
    lists = [[image] * count for count in counts]
    with pytest.raises(ValueError, match="same number of each"):
        calibrate_instances(*lists)
    with pytest.raises(ValueError, match="same number of each"):
        calibrate_semantic(*lists[1:])


def test_images_without_objects_are_read_as_by_default():
    nothing = np.zeros((20, 20), np.float32)
    reading = calibrate_semantic([nothing], [nothing.astype(int)])
    assert (reading.threshold, reading.min_size) == (0.5, 0)
