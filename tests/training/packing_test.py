"""Many arrays as one vector."""

import jax
import numpy as np
import optax
import pytest

from isl_jax.training.packing import Packing

TREE = {
    "b": {
        "kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
        "bias": np.array([7, 8], np.float32),
    },
    "a": np.ones((), np.float32),
}
PACKING = Packing.of(TREE)


def assert_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_a_tree_comes_back_from_its_vector():
    vector = PACKING.join(TREE)
    # Leaves lie in the order of their names.
    np.testing.assert_array_equal(vector, [1, 7, 8, 0, 1, 2, 3, 4, 5])
    assert isinstance(vector, np.ndarray) and PACKING.size == vector.size
    assert_equal(PACKING.split(vector), TREE)
    described = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), TREE)
    assert Packing.of(described) == PACKING


def test_another_tree_is_refused():
    other = TREE | {"a": np.ones(1, np.float32)}
    with pytest.raises(ValueError, match="not those of this packing"):
        PACKING.join(other)


def test_the_state_of_an_optimiser_is_that_of_the_tree():
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    of_tree, of_vector = adam.init(TREE), adam.init(PACKING.join(TREE))
    assert_equal(PACKING.join_within(of_tree), of_vector)
    assert_equal(PACKING.split_within(of_vector), of_tree)
