"""The benchmark of an accelerator, to its end on the CPU, at a tiny size."""

import time

import pytest

from isl_jax.data.crops import CropPlan
from isl_jax.launch.benchmarks import _crop_loaders as loaders
from isl_jax.launch.benchmarks import gpu, predict


def fail() -> dict:
    raise ValueError("out of\nmemory")


def test_the_whole_benchmark(monkeypatch, capsys):
    # Here in this process: a process for every part would take longer than what it measures.
    monkeypatch.setattr(gpu, "_apart", lambda function, arguments, end: function(*arguments))
    for name, value in {"SIZE": 256, "BATCH": 4, "NUM_FIELDS": 2, "PLAN": CropPlan(32, 5)}.items():
        monkeypatch.setattr(loaders, name, value)
    monkeypatch.setattr(predict, "_SIZE", 96)
    monkeypatch.setattr(predict, "_FIELDS", 1)
    plan = gpu.Plan(((2, 32),), ("float32",), encoder="tiny", seconds=0.1, train_steps=4)
    figures = gpu.main(peer=False, plan=plan)
    (row,) = figures["rows"]
    assert row["ours"]["images/s"] > 0 and row["ours"]["compile cold, s"] > 0
    assert figures["training"]["resumed training has the same bits"]
    assert 0 <= figures["training"]["data_wait"] <= 1
    assert figures["predict"]["overlapped"] > 0
    assert "float32 2×32² ours" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "told"), [(60, "ValueError: out of memory"), (0, "no time was left")]
)
def test_what_fails_is_named_and_the_rest_goes_on(seconds, told):
    assert gpu._apart(fail, (), time.monotonic() + seconds) == {"error": told}
