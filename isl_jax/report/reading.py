"""A sweep read from its folder, finished or half finished."""

import json
from pathlib import Path
from typing import Any

from isl_jax.report.results import OVERS, Over, Run, Study
from isl_jax.study.records import (
    ISL,
    OTHERS,
    SUMMARY,
    Row,
    evaluation_folder,
    read_rows,
    read_summary,
    run_name,
)


def find_studies(workdir: Path) -> list[Study]:
    """Read one sweep, or every sweep in the folder `workdir`.

    Raises FileNotFoundError or ValueError if there is none or its description is damaged.
    """
    folders = [workdir] if (workdir / "sweep.json").exists() else []
    folders = folders or sorted(path.parent for path in workdir.glob("*/sweep.json"))
    if not folders:
        raise FileNotFoundError(
            f"{workdir}: no sweep here (no sweep.json in it or in a folder of it); "
            "name the --workdir of isl-sweep"
        )
    # Nuclei before cells, as in the paper.
    return sorted(
        (_read_study(f) for f in folders), key=lambda s: (s.study != "nucleus", s.workdir)
    )


def read_description(workdir: Path) -> dict[str, Any]:
    """Content of a sweep's `sweep.json`; FileNotFoundError or ValueError if there is none."""
    path = workdir / "sweep.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; name the --workdir of isl-sweep")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise _damaged(workdir, error) from error


def _damaged(workdir: Path, error: Exception) -> ValueError:
    return ValueError(f"{workdir}/sweep.json: damaged ({error!r}); run the sweep again to write it")


def _read_study(workdir: Path) -> Study:
    stored = read_description(workdir)
    try:
        stand_in = stored.get("imagenet_stand_in") or {}
        runs = tuple(
            _read_run(workdir / "runs" / run_name(init, n, seed), init, n, seed)
            for n in sorted(stored["n"])
            for seed in stored["seeds"]
            for init in stored["inits"]
        )
        return Study(
            workdir=workdir,
            study=stored["study"],
            n=tuple(sorted(stored["n"])),
            inits=tuple(stored["inits"]),
            seeds=tuple(stored["seeds"]),
            data_root=Path(stored["data_root"]),
            stand_in=str(stand_in.get("reason", "")),
            runs=runs,
            pretext=_pretext(workdir, runs) if ISL in stored["inits"] else None,
            others=tuple(
                _read_run(path.parent.parent, path.parent.parent.name, 0, 0)
                for path in sorted(workdir.glob(f"{OTHERS}/*/evaluation/{SUMMARY}"))
            ),
        )
    except (KeyError, TypeError) as error:
        raise _damaged(workdir, error) from error


def _pretext(workdir: Path, runs: tuple[Run, ...]) -> Run:
    # A sweep may start from a pretext run that lies elsewhere; its ISL runs know where.
    for run in runs:
        checkpoint = run.stored("config.json").get("init", {}).get("checkpoint")
        if run.init == ISL and checkpoint:
            return _read_run(Path(checkpoint), "pretext", 0, 0)
    return _read_run(workdir / "pretrain", "pretext", 0, 0)


def _read_run(workdir: Path, init: str, n: int, seed: int) -> Run:
    failure = workdir / "failure.txt"
    if failure.exists():
        last = failure.read_text().strip().splitlines()
        return Run(init, n, seed, workdir, "failed", last[-1] if last else "no reason given")
    if read_summary(workdir) is not None:
        folder = evaluation_folder(workdir)
        rows: dict[Over, list[Row]] = {over: read_rows(folder / f"{over}.csv") for over in OVERS}
        return Run(init, n, seed, workdir, "done", rows=rows)
    if workdir.exists():
        return Run(init, n, seed, workdir, "unfinished", "training or evaluation was cut")
    return Run(init, n, seed, workdir, "missing", "not started")
