"""Many arrays as one vector: what is done to each of them alike is then done to all at once."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Packing:
    """Structure and shapes of a tree of arrays that lie one after the other in a vector `[N]`.

    A device is told to update a vector in a few kernels; a tree costs it several for each array,
    more of its time than the arithmetic.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tree: Any) -> "Packing":
        """The packing of `tree`, whose arrays may be described by their shapes alone."""
        leaves, structure = jax.tree.flatten(tree)
        return cls(structure, tuple(tuple(np.shape(leaf)) for leaf in leaves))

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(map(math.prod, self.shapes))

    def join(self, tree: Any) -> Any:
        """The vector `[N]` of a tree: a numpy one of numpy arrays. ValueError for another tree."""
        if Packing.of(tree) != self:
            raise ValueError("the arrays are not those of this packing")
        leaves = jax.tree.leaves(tree)
        on_host = all(isinstance(leaf, np.ndarray) for leaf in leaves)
        parts = [leaf.reshape(-1) for leaf in leaves]
        return np.concatenate(parts) if on_host else jnp.concatenate(parts)

    def split(self, vector: Any) -> Any:
        """The tree of a vector `[N]`, of views where this is numpy's."""
        leaves, start = [], 0
        for shape in self.shapes:
            stop = start + math.prod(shape)
            leaves.append(vector[start:stop].reshape(shape))
            start = stop
        return jax.tree.unflatten(self.structure, leaves)

    def join_within(self, tree: Any) -> Any:
        """`tree`, say an optimiser's state, with a vector for every tree of this packing in it."""

        def is_whole(part: Any) -> bool:
            return Packing.of(part) == self

        return jax.tree.map(lambda t: self.join(t) if is_whole(t) else t, tree, is_leaf=is_whole)

    def split_within(self, tree: Any) -> Any:
        """The inverse of `join_within`."""
        return jax.tree.map(
            lambda leaf: self.split(leaf) if np.shape(leaf) == (self.size,) else leaf, tree
        )
