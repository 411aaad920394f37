"""Which pieces are joined, and which stay apart."""

import numpy as np

from isl_jax.instances.joining import join_convex, solidity_of

OPTIONS = {"solidity": 0.9, "level": 0.85, "largest": 1e9}


def disk(shape, y, x, radius) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def test_the_pieces_of_one_disk_become_one_and_take_the_first_id():
    mask = disk((60, 60), 30, 30, 20)
    pieces = np.where(mask, 1, 0)
    pieces[30:, 30:][mask[30:, 30:]] = 2
    pieces[30:, :30][mask[30:, :30]] = 5
    joined = join_convex(pieces, np.ones(mask.shape), **OPTIONS)
    np.testing.assert_array_equal(joined, mask.astype(int))


def test_two_disks_that_touch_stay_two():
    first, second = disk((60, 90), 30, 25, 18), disk((60, 90), 30, 60, 18)
    labels = np.where(first, 1, np.where(second, 2, 0))
    np.testing.assert_array_equal(join_convex(labels, np.ones(labels.shape), **OPTIONS), labels)


def test_a_dark_line_keeps_pieces_apart():
    labels = np.zeros((40, 40), int)
    labels[5:35, 5:20], labels[5:35, 20:35] = 1, 2
    image = np.ones(labels.shape)
    image[:, 19:21] = 0.5
    np.testing.assert_array_equal(join_convex(labels, image, **OPTIONS), labels)
    assert join_convex(labels, np.ones(labels.shape), **OPTIONS).max() == 1


def test_nothing_grows_beyond_the_largest():
    labels = np.repeat(np.arange(1, 7), 10)[None].repeat(10, axis=0)
    joined = join_convex(labels, np.ones(labels.shape), **OPTIONS | {"largest": 250})
    assert np.bincount(joined.ravel()).max() <= 250


def test_solidity_of_a_square_and_of_an_angle():
    square = np.ones((10, 10), bool)
    assert np.isclose(solidity_of(square), 1)
    angle = square.copy()
    angle[:8, :8] = False
    # The hull cuts off a triangle of 8 × 8 pixels.
    assert np.isclose(solidity_of(angle), 36 / (100 - 32))
