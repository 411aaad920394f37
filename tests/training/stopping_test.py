"""When a run has stopped learning."""

import pytest

from isl_jax.training.stopping import BestScore


def looks(score, losses):
    """Steps 10, 20, …; returns the step at which the run ends."""
    for number, loss in enumerate(losses, 1):
        score.update(10 * number, loss)
        if score.exhausted:
            return 10 * number
    return None


@pytest.mark.parametrize(
    ("options", "losses", "end"),
    [
        ({"patience": 2}, [3, 2, 2.5, 2.1, 1], 40),
        ({"patience": 2}, [3, 2, 2.5, 1, 1.5, 0.5], None),
        ({"patience": 2}, [1, float("inf"), 2], 30),
        ({"patience": 0}, [1, 2, 3, 4, 5], None),
        ({"patience": 2, "patience_from": 40}, [1, 2, 3, 4, 5], 50),
    ],
)
def test_patience_counts_looks_without_a_lower_loss(options, losses, end):
    assert looks(BestScore(**options), losses) == end


def test_a_resumed_score_goes_on_counting():
    score, resumed = BestScore(patience=3), BestScore(patience=3)
    looks(score, [1, 2, 3])
    resumed.set_state(score.get_state())
    assert not resumed.exhausted
    assert not resumed.update(40, 1.0)
    assert resumed.exhausted
    assert (resumed.loss, resumed.step) == (1, 10)
