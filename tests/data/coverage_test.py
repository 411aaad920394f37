"""The order of fields against what it claims: nested, typical first, different next, full ones."""

import numpy as np
import pytest

from isl_jax.data.coverage import (
    distances,
    field_features,
    order_by_coverage,
    plane_map,
)

# Two kinds of fields, of which the second is rarer; and one odd field.
KINDS = np.array([[0.0, 0], [0.1, 0], [0, 0.1], [0.1, 0.1], [3, 0], [3.1, 0], [3, 0.1], [0, 9]])


def indices(steps) -> list[int]:
    return [step.index for step in steps]


def test_the_first_two_are_one_of_each_kind_and_the_odd_one_is_third():
    steps = order_by_coverage(KINDS, range(len(KINDS)))
    first = indices(steps)[:3]
    assert first[0] in range(4) and first[1] in (4, 5, 6, 7) and first[2] in (4, 5, 6, 7)
    assert {first[1], first[2]} & {4, 5, 6} and 7 in first[1:]
    assert steps[0].nearest is None and steps[1].nearest == first[0]


def test_the_order_is_greedy_as_brute_force_finds_it():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(12, 5))
    apart = distances(features)
    np.testing.assert_allclose(
        apart, np.sqrt(((features[:, None] - features[None]) ** 2).mean(axis=-1))
    )
    steps = indices(order_by_coverage(features, range(12)))
    for k in range(1, 12):
        costs = {c: apart[:, [*steps[:k], c]].min(axis=1).sum() for c in steps[k:]}
        assert costs[steps[k]] == pytest.approx(min(costs.values()))
    assert apart[steps[0]].sum() == pytest.approx(apart.sum(axis=1).min())


def test_of_fields_that_add_as_much_the_fullest_comes_first():
    features = np.array([[0.0], [0], [5], [5], [5]])
    steps = order_by_coverage(features, range(5), objects=[3, 9, 7, 8, 20])
    assert indices(steps)[:2] == [4, 1]
    assert steps[1].rivals == 2


def test_what_is_annotated_already_counts():
    steps = order_by_coverage(KINDS[:7], [1, 5, 6], given=[0])
    assert indices(steps)[0] in (5, 6) and steps[0].stands_for == 3


def test_every_beginning_is_the_order_of_a_smaller_number():
    # By construction: one order, of which the first n are taken. It must hold every candidate once.
    steps = indices(order_by_coverage(KINDS, range(len(KINDS)), objects=range(len(KINDS))))
    assert sorted(steps) == list(range(len(KINDS)))


def test_features_are_in_units_of_what_places_differ_by():
    rng = np.random.default_rng(1)
    # Units of the columns differ a thousandfold, one column never varies.
    scale = np.array([1, 1000, 1])
    fields = [rng.normal(0, 1, (n, 3)) * scale * [1, 1, 0] for n in (400, 900, 400)]
    fields[2] = fields[2] + [3, 0, 0]
    features = field_features(fields)
    assert np.abs(features[:, 2]).max() == 0
    apart = distances(features)
    assert apart[0, 1] < 0.15 and apart[0, 2] > 0.5


def test_one_field_and_equal_fields_have_an_order():
    assert indices(order_by_coverage(np.zeros((1, 4)), [0])) == [0]
    steps = order_by_coverage(np.zeros((3, 4)), [0, 1, 2], objects=[1, 5, 2])
    assert indices(steps) == [1, 2, 0]


def test_the_map_keeps_distances_of_a_plane():
    rng = np.random.default_rng(2)
    flat = rng.normal(size=(9, 2)) * [3, 1]
    rotated = (
        np.concatenate([flat, np.zeros((9, 4))], axis=1) @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    )
    found = plane_map(rotated)
    gap = np.linalg.norm(found[:, None] - found[None], axis=-1)
    np.testing.assert_allclose(gap, np.linalg.norm(flat[:, None] - flat[None], axis=-1), atol=1e-9)
    assert plane_map(np.zeros((1, 5))).shape == (1, 2)
