"""Turn a sweep into one self-contained page with tables, figures and pictures.

    isl-report --workdir=S

S is the workdir of isl-sweep, or a folder of several. The page, report/index.html, needs no
network; the figures lie beside it as PNG and SVG, the tables as CSV. The table is printed as well.
"""

from pathlib import Path

from absl import flags

from isl_jax.launch.command import command
from isl_jax.locks import locked
from isl_jax.report.page import REPORT, write_report

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a sweep, or of several sweeps.")


def main() -> int:
    """Write the report of the sweeps in --workdir."""
    if not _WORKDIR.value:
        raise ValueError("--workdir=FOLDER is needed: the workdir of isl-sweep")
    workdir = Path(_WORKDIR.value)
    with locked(workdir / REPORT, "copy the sweep elsewhere", replaces=True):
        page, table = write_report(workdir)
    print(table)
    print(f"\nreport: {page}")
    return 0


run = command(main)

if __name__ == "__main__":
    run()
