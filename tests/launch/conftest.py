"""Commands as a user starts them: in a process of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def launch() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`launch("train", "--workdir=W", cwd=folder)`: run that command to its end."""

    def run(
        command: str, *arguments: object, cwd: Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_line(command, *arguments),
            cwd=cwd,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


def command_line(command: str, *arguments: object) -> list[str]:
    """Words that start a command of `launch/` with this Python."""
    return [sys.executable, str(ROOT / "launch" / f"{command}.py"), *map(str, arguments)]
