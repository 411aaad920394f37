"""Measure one part of the project, beside the established tool for the same job with --peer.

    isl-bench --suite=train --peer --json=train.json

Suites: ceiling, instances, loader, matching, predict, train. Every suite prints a table. Peers are
measured in the same run, alternating with ours; they are not dependencies (`pip install
isl-jax[bench]`).
"""

import importlib
import pkgutil
from pathlib import Path

from absl import flags

from isl_jax.files import write_json
from isl_jax.launch import benchmarks
from isl_jax.launch.command import command

_SUITE = flags.DEFINE_string("suite", None, "Which suite to run.")
_PEER = flags.DEFINE_bool("peer", False, "Measure the established tool too.")
_JSON = flags.DEFINE_string("json", None, "Write the figures to this file.")


def main() -> int:
    """Run the suite that the flags name."""
    names = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    suites = sorted(name for name in names if not name.startswith("_"))
    if _SUITE.value not in suites:
        raise ValueError(f"--suite={_SUITE.value}: choose one of {', '.join(suites)}")
    suite = importlib.import_module(f"{benchmarks.__name__}.{_SUITE.value}")
    figures = suite.main(peer=_PEER.value)
    if _JSON.value:
        write_json(Path(_JSON.value), figures)
    return 0


run = command(main)

if __name__ == "__main__":
    run()
