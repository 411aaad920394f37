"""Machines where nothing but the output can be written."""

from pathlib import Path

import jax
import pytest

from isl_jax.launch.configuration import configure_jax
from isl_jax.models import imagenet, weights


@pytest.fixture
def chosen(monkeypatch) -> list:
    """What is set of jax; nothing is."""
    found: list = []
    monkeypatch.setattr(jax.config, "update", lambda *pair: found.append(pair))
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_compiled_programs_are_kept_where_there_is_a_folder_for_them(tmp_path, monkeypatch, chosen):
    monkeypatch.setenv("HOME", str(tmp_path))
    configure_jax()
    assert chosen == [("jax_compilation_cache_dir", str(tmp_path / ".cache/isl_jax/compilation"))]


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null"])
def test_without_one_they_are_not(monkeypatch, chosen, home):
    monkeypatch.setenv("HOME", home)
    configure_jax()
    assert chosen == []


def test_a_user_without_a_home(monkeypatch, chosen):
    def none(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    monkeypatch.setattr(Path, "expanduser", none)
    configure_jax()
    assert chosen == []
    with pytest.raises(OSError, match=r"cannot be had offline.*put it at"):
        imagenet.load_imagenet("torchvision", offline=True)
    with pytest.raises(FileNotFoundError, match=r"w\.pth: no such weights file"):
        weights.read_state_dict("w.pth")
