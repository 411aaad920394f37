import numpy as np
import pytest

from isl_jax.ingest import projections


def plain_sharpness(plane, window):
    """The definition, pixel by pixel, on a mirrored border."""
    half = window // 2
    plane = plane.astype(np.float64)

    def windowed_mean(values):
        padded = np.pad(values, half, mode="reflect")
        out = np.empty_like(values)
        for y, x in np.ndindex(*values.shape):
            out[y, x] = padded[y : y + window, x : x + window].mean()
        return out

    mean = windowed_mean(plane)
    ratio = np.ones_like(plane)
    for at in np.ndindex(*plane.shape):
        small, large = sorted((plane[at], mean[at]))
        ratio[at] = large / small if small > 0 else 1
    return windowed_mean(ratio)


def test_sharpness_matches_its_plain_definition():
    plane = np.random.default_rng(0).integers(0, 4000, (20, 23)).astype(np.uint16)
    plane[:5, :5] = 0
    np.testing.assert_allclose(
        projections.sharpness(plane, window=5), plain_sharpness(plane, 5), rtol=2e-4
    )


@pytest.mark.parametrize(("num_planes", "kept"), [(1, 1), (4, 1), (5, 1), (10, 2), (13, 3)])
def test_focus_projection_averages_the_sharpest_planes_of_each_pixel(num_planes, kept):
    rng = np.random.default_rng(num_planes)
    stack = rng.integers(1, 60000, (num_planes, 16, 19)).astype(np.uint16)
    ranking = np.stack([plain_sharpness(plane, 7) for plane in stack])
    expected = np.empty(stack.shape[1:])
    for y, x in np.ndindex(*expected.shape):
        best = np.argsort(-ranking[:, y, x], kind="stable")[:kept]
        expected[y, x] = np.rint(stack[best, y, x].astype(np.float64).mean())
    out = projections.focus_projection(stack, proportion=0.2)
    assert out.dtype == np.uint16
    # float32 against float64 may rank two planes of all but equal sharpness differently.
    assert np.mean(out != expected) < 0.01


def test_focus_projection_finds_the_plane_in_focus():
    sharp = np.random.default_rng(0).integers(0, 1000, (32, 32)).astype(np.uint16)
    stack = np.stack([np.full_like(sharp, 500), sharp, np.full_like(sharp, 480)])
    np.testing.assert_array_equal(projections.focus_projection(stack), sharp)


def test_max_and_mean_projection_keep_the_dtype():
    stack = np.array([[[1, 10]], [[2, 3]], [[2, 3]]], np.uint8)
    assert projections.max_projection(stack).tolist() == [[2, 10]]
    mean = projections.mean_projection(stack)
    assert mean.dtype == np.uint8 and mean.tolist() == [[2, 5]]
