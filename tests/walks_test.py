"""One crop and one image stay on a short way through the house."""

import sys

import pytest

from tests.walks import Trace, walk

# Files of isl_jax that may be entered; a larger number is a longer way to learn.
MOST = {"crop": 74, "image": 45}


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> dict:
    return walk(tmp_path_factory.mktemp("walks"))


@pytest.mark.parametrize("name", MOST)
def test_a_walk_enters_few_files(walked, name):
    files = walked[name]
    assert len(files) <= MOST[name], "\n".join(files)


def test_a_walk_is_the_whole_way(walked):
    assert {"data/crops.py", "training/loop.py", "task.py"} < set(walked["crop"])
    assert {"inference/model.py", "ingest/tiff.py"} < set(walked["image"])


def test_a_tiff_is_opened_twice_at_most(walked):
    assert walked["opened"] and max(walked["opened"].values()) <= 2, walked["opened"]


def test_only_what_is_called_is_traced(tmp_path):
    (tmp_path / "called.py").write_text("def f():\n    pass\n")
    (tmp_path / "imported.py").write_text("def g():\n    pass\ng()\nclass A:\n    x = g()\n")
    trace = Trace(tmp_path)
    sys.path.insert(0, str(tmp_path))
    sys.setprofile(trace)
    try:
        import called
        import imported  # noqa: F401

        called.f()
    finally:
        sys.setprofile(None)
        sys.path.remove(str(tmp_path))
    assert trace.files == {"called.py"}
