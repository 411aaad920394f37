"""Measure one part of the project, beside the established tool for the same job with --peer.

    isl-bench --suite=train --peer --json=train.json
    isl-bench --suite=compile --target=h100 --devices=4 --batch=40

Suites: ceiling, compile, drafts, gpu, instances, loader, matching, predict, train. Every suite
prints a table. Peers are measured in the same run, alternating with ours; they are not dependencies
(`pip install isl-jax[bench]`). How well other programs segment, tells
`python -m isl_jax.launch.benchmarks.peers --help`.
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
_TARGET = flags.DEFINE_enum("target", "h100", ["h100", "v5e"], "compile: device that is not here.")
_DEVICES = flags.DEFINE_integer("devices", 1, "compile: how many of them.", lower_bound=1)
_BATCH = flags.DEFINE_integer(
    "batch", 10, "compile: crops a step, over all devices.", lower_bound=1
)
_DTYPE = flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float32"], "compile: computed in.")


def main() -> int:
    """Run the suite that the flags name."""
    names = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    # peers is a command of its own.
    suites = sorted(name for name in names if not name.startswith("_") and name != "peers")
    if _SUITE.value not in suites:
        raise ValueError(f"--suite={_SUITE.value}: choose one of {', '.join(suites)}")
    suite = importlib.import_module(f"{benchmarks.__name__}.{_SUITE.value}")
    if _SUITE.value == "compile":
        request = suite.Request(_TARGET.value, _DEVICES.value, _BATCH.value, dtype=_DTYPE.value)
        figures = suite.main(request)
    else:
        figures = suite.main(peer=_PEER.value)
    if _JSON.value:
        write_json(Path(_JSON.value), figures)
    return 0


run = command(main)

if __name__ == "__main__":
    run()
