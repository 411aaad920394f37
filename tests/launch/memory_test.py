"""Freed memory stays with the process that asked for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isl_jax.launch.memory import keep_freed_memory

_PROGRAM = """
import os
import sys
from pathlib import Path
import numpy as np
from isl_jax.launch.memory import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

kept = sys.argv[1] == "keep" and keep_freed_memory()
before = resident()
for _ in range(3):
    arrays = [np.ones(2**25, np.uint8) for _ in range(4)]
    del arrays
print(kept, resident() - before)
"""


def run(argument: str, **environment: str) -> tuple[str, float]:
    """What keep_freed_memory said, and MiB more than before after 128 MiB came and went."""
    command = [sys.executable, "-c", _PROGRAM, argument]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    said, grown = done.stdout.split()
    return said, float(grown)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_freed_memory_stays_and_is_used_again():
    assert run("default")[1] < 20
    said, grown = run("keep")
    assert said == "True"
    # All of the 128 MiB, once: three times would mean that none of it was used again.
    assert 120 < grown < 160


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_the_users_own_settings_stand():
    assert run("keep", GLIBC_TUNABLES="glibc.malloc.hugetlb=1")[0] == "False"


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
