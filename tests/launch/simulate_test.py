"""The command line of the simulator: what it writes, and one line for bad input."""

import functools

import pytest


@pytest.fixture
def simulate(launch):
    return functools.partial(launch, "simulate")


def test_help_explains(simulate, tmp_path):
    shown = simulate("--help", cwd=tmp_path)
    assert shown.returncode == 0
    for word in ("--study=nucleus", "data set 2", "objective_na", "µm"):
        assert word in shown.stdout


def test_fields_are_written_and_kept(simulate, tmp_path):
    options = ["--out=RAW", "--study=cell", "--size=64", "--cell_diameter_um=8", "--seed=2"]
    first = simulate(*options, "--fields=1", cwd=tmp_path)
    assert (first.returncode, first.stdout) == (0, "RAW: 1 fields written\n")
    more = simulate(*options, "--fields=2", cwd=tmp_path)
    assert (more.returncode, more.stdout) == (0, "RAW: 1 fields written, 1 were there already\n")
    assert len(list((tmp_path / "RAW").iterdir())) == 2 * 4 + 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], ["--out"]),
        (["--out=RAW", "--study=tissue"], ["study", "nucleus|cell"]),
        (["--out=RAW", "--fields=0"], ["fields", "positive"]),
        (["--out=RAW", "--size=16"], ["size is 16", "64"]),
        (["--out=RAW", "--confluence=0.5"], ["--confluence has 1 values; expected 2"]),
        (["--out=RAW", "--focal_planes_um=a,b"], ["--focal_planes_um", "numbers"]),
        (["--out=RAW", "--objective_na=1.2"], ["pixel_size_um 0.325 undersamples"]),
        (["--out=RAW", "fields=3"], ["fields=3", "--name=value"]),
    ],
)
def test_bad_options_cost_one_line_and_write_nothing(simulate, tmp_path, arguments, told):
    failed = simulate(*arguments, cwd=tmp_path)
    assert failed.returncode != 0
    assert failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1
    assert all(text in failed.stderr for text in told), failed.stderr
    assert not list(tmp_path.iterdir())
