"""Turn a sweep into one self-contained page with tables, figures and pictures.

    isl-report --workdir=S

S is the workdir of isl-sweep, or a folder of several. The page, report/index.html, needs no
network; the figures lie beside it as PNG and SVG, the tables as CSV. The table is printed as well.

    isl-report --workdir=FOLDER --pool

pools the sweeps in FOLDER that repeat one question on other annotated images or data sets: every
field counts once, fields of the same cells as one, and the interval draws fields, sweeps and seeds
anew. Writes FOLDER/pooled.csv and prints it: ISL against each arm and each program of
launch/benchmarks/peers.py.
"""

from pathlib import Path

from absl import flags

from isl_jax.launch.command import command
from isl_jax.locks import locked
from isl_jax.report.page import REPORT, write_report
from isl_jax.report.pooling import POOLED, pool, pooled_table, write_pooled

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a sweep, or of several sweeps.")
_POOL = flags.DEFINE_bool("pool", False, "One answer from all sweeps in the folder; no page.")


def main() -> int:
    """Write the report of the sweeps in --workdir."""
    if not _WORKDIR.value:
        raise ValueError("--workdir=FOLDER is needed: the workdir of isl-sweep")
    workdir = Path(_WORKDIR.value)
    if _POOL.value:
        rows = pool(workdir)
        write_pooled(workdir / POOLED, rows)
        print(pooled_table(rows))
        print(f"\npooled: {workdir / POOLED}")
        return 0
    with locked(workdir / REPORT, "copy the sweep elsewhere", replaces=True):
        page, table = write_report(workdir)
    print(table)
    print(f"\nreport: {page}")
    return 0


run = command(main)

if __name__ == "__main__":
    run()
