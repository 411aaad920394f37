"""Runs of a sweep and their scores, read from their folders, finished or half finished."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from isl_jax.data.crops import CropPlan
from isl_jax.files import misfit, read_json
from isl_jax.metrics import Score, mean_std
from isl_jax.study.records import (
    OTHERS,
    SUMMARY,
    Row,
    evaluation_folder,
    read_metrics,
    read_rows,
    read_summary,
    recorded_crops,
    recorded_tta,
    run_name,
)
from isl_jax.tabular import printable

Over = Literal["crops", "fields"]
OVERS: tuple[Over, ...] = ("crops", "fields")
# What the report wants of a run's JSON files.
_STORED = {
    "model/model.json": {
        "h?": (float, None),
        "training?": {"step?": (int, None), "fields?": [str]},
    },
    "config.json": {"init?": {"kind?": (str, None)}},
}
Status = Literal["done", "failed", "unfinished", "missing"]


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a workdir holds of scores by image; `status` tells why there are none.

    `crops` says how the crops were drawn, None where that was not recorded (earlier versions),
    `tta` how often each image was predicted.
    """

    workdir: Path
    status: Status
    reason: str = ""
    rows: Mapping[Over, Sequence[Row]] = dataclasses.field(default_factory=dict)
    crops: CropPlan | None = None
    tta: int = 1

    def stored(self, name: str) -> dict[str, Any]:
        """One of the run's JSON files, empty when there is none."""
        path = self.workdir / name
        keys = _STORED.get(name, {})
        remedy = "run the same command again"
        return read_json(path, remedy=remedy, keys=keys) if path.exists() else {}

    def losses(self) -> list[tuple[int, float]]:
        """Training loss by step, as far as it was recorded."""
        return [
            (record["step"], record["loss"])
            for record in read_metrics(self.workdir)
            if record.get("split") == "train" and misfit(record, {"loss": float}) is None
        ]

    def values(self, metric: str, over: Over) -> list[float]:
        """Scores of all images; none of a metric that the run was not judged by."""
        return [row[metric] for row in self.rows.get(over, ()) if metric in row]

    def score(self, metric: str, over: Over) -> Score:
        """Mean ± std over images."""
        return mean_std(self.values(metric, over))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Scored):
    """One run of the grid: of an arm, trained on `n` annotated images."""

    arm: str
    n: int
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program(Scored):
    """The label images of another program, scored on the crops and fields of the sweep."""

    name: str


def read_run(workdir: Path, arm: str, n: int, seed: int) -> Run:
    """One run of the grid of the sweep in `workdir`."""
    folder = workdir / "runs" / run_name(arm, n, seed)
    return Run(**_read(folder), arm=arm, n=n, seed=seed)


def read_scored(workdir: Path) -> Scored:
    """A run that is none of the grid: the pretext run."""
    return Scored(**_read(workdir))


def read_programs(workdir: Path) -> tuple[Program, ...]:
    """What other programs' label images score, in the sweep in `workdir`."""
    found = sorted(path.parents[1] for path in workdir.glob(f"{OTHERS}/*/evaluation/{SUMMARY}"))
    return tuple(Program(**_read(folder), name=printable(folder.name)) for folder in found)


def _read(workdir: Path) -> dict[str, Any]:
    failure = workdir / "failure.txt"
    if failure.exists():
        last = failure.read_text().strip().splitlines()
        reason = last[-1] if last else "no reason given"
        return {"workdir": workdir, "status": "failed", "reason": reason}
    summary = read_summary(workdir)
    if summary is not None:
        folder = evaluation_folder(workdir)
        rows = {over: read_rows(folder / f"{over}.csv", over, summary) for over in OVERS}
        scored = {"crops": recorded_crops(summary), "tta": recorded_tta(summary)}
        return {"workdir": workdir, "status": "done", "rows": rows, **scored}
    if workdir.exists():
        reason = "training or evaluation was cut"
        return {"workdir": workdir, "status": "unfinished", "reason": reason}
    return {"workdir": workdir, "status": "missing", "reason": "not started"}


def check_same_crops(runs: Sequence[Scored]) -> None:
    """ValueError that names the runs if they were scored on different crops.

    Runs that did not record their crops, of earlier versions, count as equal to any.
    """
    groups: dict[CropPlan, list[Scored]] = {}
    for run in runs:
        if run.crops is not None:
            groups.setdefault(run.crops, []).append(run)
    if len(groups) < 2:
        return
    told = "; ".join(
        ", ".join(run.workdir.name for run in group)
        + " on "
        + ", ".join(f"{name} {value}" for name, value in vars(crops).items())
        for crops, group in sorted(groups.items(), key=lambda item: -len(item[1]))
    )
    raise ValueError(
        f"{runs[0].workdir.parents[1]}: scored on different crops, which cannot be compared: {told}"
        "; score those in the wrong anew: isl-evaluate --workdir=RUN --overwrite"
    )


def check_same_tta(runs: Sequence[Run]) -> None:
    """ValueError that names the runs if their images were predicted more often than others'."""
    by_tta = {tta: [r.workdir.name for r in runs if r.tta == tta] for tta in {r.tta for r in runs}}
    if len(by_tta) > 1:
        told = "; ".join(f"{', '.join(names)} with {tta}" for tta, names in sorted(by_tta.items()))
        raise ValueError(
            f"{runs[0].workdir.parents[1]}: scored with different --tta, which cannot be compared: "
            f"{told}; score some anew: isl-evaluate --workdir=RUN --tta=… --overwrite"
        )
