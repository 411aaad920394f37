"""The command line of training: bad input costs one line, and nothing is written."""

import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CELL = ROOT / "configs" / "cell.py"


@pytest.fixture
def train(launch):
    return functools.partial(launch, "train")


def test_help_explains_and_succeeds(train, tmp_path):
    shown = train("--help", cwd=tmp_path)
    assert shown.returncode == 0
    for word in ("pretrain", "init=isl", "--workdir", "resumes"):
        assert word in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([f"--config={CELL}", "--workdir=W"], ["stage", "pretrain"]),
        ([f"--config={CELL}:pretrane", "--workdir=W"], ["pretrane", "pretrain, segment"]),
        (
            [f"--config={CELL}:pretrain", "--config.train.num_step=3", "--workdir=W"],
            ["num_step", "num_steps"],
        ),
        (
            [f"--config={CELL}:pretrain", "--config.data.root=no/such", "--workdir=W"],
            ["no/such", "no such folder"],
        ),
        (
            [f"--config={CELL}:pretrain", "--workdir=W", "--coordinator=localhost:1"],
            ["--num_processes", "--process_id", "belong together"],
        ),
        ([f"--config={CELL}:pretrain", "--workdir", "W", "stray"], ["stray"]),
    ],
    ids=lambda value: " ".join(map(str, value))[-40:],
)
def test_bad_input_is_one_line_and_writes_nothing(train, arguments, told, tmp_path):
    ended = train(*arguments, cwd=tmp_path)
    assert ended.returncode != 0
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    for word in told:
        assert word in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_packaged_study_is_found_from_anywhere(train, tmp_path):
    ended = train("--config=cell:pretrain", "--workdir=W", cwd=tmp_path)
    assert "data.root" in ended.stderr
