"""Three hundred damaged files: each is read or named; `make fuzz N=10000` tries more."""

import subprocess
import sys

from tests.launch.conftest import ROOT


def test_damaged_files_are_read_or_named(tmp_path):
    # In a process of its own: children are forked from one that has no threads.
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.trial", "300", "7"],
        cwd=ROOT,
        env={"PATH": "", "FUZZ_FOLDER": str(tmp_path / "fuzz"), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr[-5000:]
    *_, total = ended.stdout.splitlines()
    accepted, named, *others = map(int, total.strip("| ").split(" | ")[1:])
    # Damage that nothing notices, or all damage alike, would mean that the harness sees nothing.
    assert sum(others) == 0 and accepted + named == 300 and accepted > 30 and named > 100
