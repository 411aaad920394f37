"""Prediction of any size: tiled as untiled, in files as in memory, in batches as one by one."""

import jax
import numpy as np
import pytest

from isl_jax.inference import forward
from isl_jax.inference.large import Scratch

TILING = {"tile": 384, "halo": 96}


@pytest.mark.parametrize("shape", [(500, 411), (385, 200), (700, 384)])
def test_tiled_equals_untiled(make_model, make_planes, shape):
    model, planes = make_model("distance_and_semantic"), make_planes(*shape)
    whole, tiled = model.predict(planes), model.predict(planes, **TILING)
    assert whole.distance.shape == shape
    assert np.abs(tiled.distance - whole.distance).max() / model.info.task.distance_unit < 1e-5
    np.testing.assert_allclose(tiled.probability, whole.probability, atol=1e-5)


def test_a_whole_image_is_what_the_network_says(make_model, make_planes):
    model, planes = make_model("stain"), make_planes(96, 64)
    standardised = (planes - planes.mean((1, 2), keepdims=True)) / planes.std((1, 2), keepdims=True)
    image = np.moveaxis(standardised, 0, -1).astype(np.float32)
    np.testing.assert_allclose(
        model.predict(planes).stain, model.outputs(image[None])[0, ..., 0], atol=1e-5
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_any_dtype(make_model, make_planes, dtype):
    model = make_model("semantic")
    planes = (make_planes(64, 64) // 300).astype(dtype)
    expected = model.predict(planes.astype(np.float64)).probability
    np.testing.assert_allclose(model.predict(planes).probability, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (7, 40), (31, 31)])
def test_images_smaller_than_the_stride(make_model, make_planes, shape):
    found = make_model("distance_and_semantic").predict(
        make_planes(40, 40)[:, : shape[0], : shape[1]]
    )
    assert found.labels.shape == found.distance.shape == shape
    assert np.isfinite(found.distance).all()


def test_stacks_and_lists_are_predicted_as_their_images(make_model, make_planes):
    model = make_model("semantic")
    images = [make_planes(64, 64, seed=seed) for seed in range(3)] + [make_planes(50, 90)]
    expected = [model.predict(image).probability for image in images]
    for several in (images, np.stack(images[:3])):
        for found, one in zip(model.predict(several), expected, strict=False):
            np.testing.assert_allclose(found.probability, one, atol=1e-5)


def test_nothing_is_larger_than_a_band_in_memory(make_model, make_planes, tmp_path):
    model, planes = make_model("distance_and_semantic"), make_planes(500, 411)
    path = tmp_path / "planes.npy"
    np.save(path, planes)
    whole = model.predict(planes, **TILING)
    scratch = Scratch(tmp_path, max_pixels=1000)
    found = model.predict(np.load(path, mmap_mode="r"), scratch=scratch, **TILING)
    for name in ("distance", "probability", "labels"):
        assert isinstance(getattr(found, name), np.memmap)
    np.testing.assert_array_equal(found.distance, whole.distance)
    np.testing.assert_array_equal(found.labels > 0, whole.labels > 0)
    assert list(tmp_path.iterdir()) == [path]


def test_nan_is_refused(make_model, make_planes):
    planes = make_planes(64, 64).astype(np.float32)
    planes[1, 3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        make_model("semantic").predict(planes)


def exhausted_above(model, monkeypatch, pixels):
    """The network runs out of memory for batches of more than so many pixels."""
    function, sizes = model._maps._function, []

    def limited(variables, images):
        sizes.append(images.shape[:3])
        if np.prod(images.shape[:3]) > pixels:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return function(variables, images)

    monkeypatch.setattr(model._maps, "_function", limited)
    return sizes


def test_batches_that_do_not_fit_are_halved(make_model, make_planes, monkeypatch):
    model = make_model("semantic")
    images = [make_planes(64, 64, seed=seed) for seed in range(6)]
    expected = [model.predict(image).probability for image in images]
    sizes = exhausted_above(model, monkeypatch, 2 * 64 * 64)
    for found, one in zip(model.predict(images), expected, strict=True):
        np.testing.assert_allclose(found.probability, one, atol=1e-5)
    assert [size[0] for size in sizes] == [8, 4, 2, 2, 2]


def test_tiles_that_do_not_fit_are_made_smaller(make_model, make_planes, monkeypatch):
    model, planes = make_model("semantic"), make_planes(600, 500)
    whole = model.predict(planes).probability
    sizes = exhausted_above(model, monkeypatch, 450 * 450)
    found = model.predict(planes, halo=96).probability
    np.testing.assert_allclose(found, whole, atol=1e-4)
    model.predict(planes, halo=96)
    assert max(sizes[-1]) <= 450 < max(sizes[0])
    with pytest.raises(MemoryError, match="smaller tile"):
        exhausted_above(model, monkeypatch, 64)
        model.predict(planes, halo=96)


def test_weights_of_another_network_are_named(make_model, make_planes):
    model = make_model("semantic")
    other = make_model("semantic", channels=("phase",))
    other.info = model.info
    with pytest.raises(ValueError, match="weights do not fit"):
        other.predict(make_planes(32, 32))


def test_every_device_takes_its_share(make_model, make_planes):
    model = make_model("semantic")
    shape = (64, 64, 3)
    assert model._maps.batch_size(shape) % len(jax.local_devices()) == 0
    images = np.random.default_rng(0).random((8, *shape)).astype(np.float32)
    assert len(model._maps._start(images).sharding.device_set) == len(jax.local_devices())
    one_by_one = np.concatenate([model._maps(image[None]) for image in images])
    np.testing.assert_allclose(model._maps(images), one_by_one, atol=1e-5)
    assert forward._MAX_BATCH * len(jax.local_devices()) >= model._maps.batch_size(shape)


def test_a_batch_fills_the_memory_of_an_accelerator_and_no_more(make_model, monkeypatch):
    model, shape, limit = make_model("semantic"), (128, 96, 3), 100 << 20
    monkeypatch.setattr(forward, "_device_memory", lambda: limit)
    monkeypatch.setattr(forward, "_PROBE", 128)
    size = model._maps.batch_size(shape) // len(jax.local_devices())
    batch = jax.ShapeDtypeStruct((size, *shape), np.float32)
    program = model._maps._function.lower(model._maps._variables, batch).compile()
    memory = program.memory_analysis()
    needed = memory.temp_size_in_bytes + memory.output_size_in_bytes + 4 * np.prod(batch.shape)
    # Batches are powers of two, so that at least half of the share is used; the rest is slack.
    assert 0.2 * limit < needed < 0.7 * limit
