"""What the help of the benchmarks says."""

import pkgutil
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_help_names_every_suite():
    names = {module.name for module in pkgutil.iter_modules([str(ROOT / "launch" / "benchmarks")])}
    told = re.search(r"Suites: ([a-z, \n]+)\.", (ROOT / "launch" / "bench.py").read_text())
    assert told is not None
    suites = {name for name in names if not name.startswith("_")} - {"peers"}
    assert set(re.split(r",\s+", told[1])) == suites
