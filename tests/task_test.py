import pytest

from isl_jax.task import DISTANCE_PEAKS, Kind, Task


def test_maps_have_one_peak_a_cell_unless_told_otherwise():
    assert Task(Kind.INSTANCES).distance_peaks == "single"
    for peaks in DISTANCE_PEAKS:
        assert Task(Kind.INSTANCES, distance_peaks=peaks).distance_peaks == peaks


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "cells"}, "unknown target 'cells': choose one of stain"),
        ({"distance_peaks": "two"}, "target.distance_peaks='two': choose one of single, all"),
        ({"distance_scale": "miles"}, "target.distance_scale='miles': choose one of normalised"),
        ({"distance_unit": 0.0}, "target.distance_unit=0.0: choose more than 0"),
        ({"activation": "tanh"}, "unknown activation 'tanh'"),
    ],
)
def test_words_that_are_none_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Task(**{"kind": Kind.INSTANCES} | settings)
