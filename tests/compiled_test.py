"""Compiled functions run wherever they are imported."""

import numba.core.caching
import pytest

from isl_jax.compiled import compiled


def one_more(x):
    return x + 1


def test_without_a_folder_for_its_cache_a_function_runs(monkeypatch):
    monkeypatch.setattr(numba.core.caching.CompileResultCacheImpl, "_locator_classes", [])
    assert compiled()(one_more)(1) == 2


@pytest.mark.parametrize("name", ["save_overload", "load_overload"])
def test_a_full_disk_or_a_damaged_cache_is_passed_over(monkeypatch, name):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numba.core.caching.Cache, name, fail, raising=True)
    monkeypatch.setattr(numba.core.caching.FunctionCache, name, fail)
    assert compiled(inline="never")(one_more)(1) == 2


def test_a_function_can_be_kept():
    assert compiled()(one_more).stats.cache_path
