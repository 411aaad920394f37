"""Freed memory stays with the process that asked for it."""

import os
import platform
import subprocess
import sys

import pytest

from isl_jax.launch.memory import computes_on_cpu, keep_freed_memory

needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="a setting of glibc's malloc, which is not here"
)

_PROGRAM = """
import os
import sys
from pathlib import Path
import numpy as np
from isl_jax.launch.memory import computes_on_cpu, keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

kept = sys.argv[1] == "keep" and keep_freed_memory()
before = resident()
for _ in range(3):
    arrays = [np.ones(2**25, np.uint8) for _ in range(4)]
    del arrays
print(kept, resident() - before)
"""


def run(argument: str, *, tunables: str = "", platforms: str = "cpu") -> tuple[str, float]:
    """What keep_freed_memory said, and MiB more than before after 128 MiB came and went."""
    command = [sys.executable, "-c", _PROGRAM, argument]
    environment = os.environ | {"GLIBC_TUNABLES": tunables, "JAX_PLATFORMS": platforms}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    said, grown = done.stdout.split()
    return said, float(grown)


@needs_glibc
def test_freed_memory_stays_and_is_used_again():
    assert run("default")[1] < 20
    said, grown = run("keep")
    assert said == "True"
    # All of the 128 MiB, once: three times would mean that none of it was used again.
    assert 120 < grown < 160


@needs_glibc
def test_the_users_own_settings_stand():
    assert run("keep", tunables="glibc.malloc.hugetlb=1")[0] == "False"


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


@needs_glibc
@pytest.mark.parametrize("platforms", ["cuda", "cuda,cpu", "tpu"])
def test_where_an_accelerator_steps_the_allocator_is_left_alone(platforms):
    said, grown = run("keep", platforms=platforms)
    assert said == "False" and grown < 20


@pytest.mark.parametrize("has_plugin", [True, False])
@pytest.mark.parametrize("file", ["nvidia0", "vfio/0", "accel0", None])
def test_an_accelerator_is_a_plugin_and_a_device(monkeypatch, tmp_path, has_plugin, file):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [1] if has_plugin else [])
    if file:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert computes_on_cpu(tmp_path) == (not (has_plugin and file))
