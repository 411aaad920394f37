"""What a sweep is going to do: its runs, how far each has come, how long the rest will take."""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

from isl_jax.models import weights
from isl_jax.study.experiment import Experiment
from isl_jax.study.records import ISL, read_metrics, read_summary, run_name
from isl_jax.study.scoring import EvaluationCrops
from isl_jax.study.settings import InitSettings
from isl_jax.study.workdir import changed_settings

TIMING = "timing.json"

State = Literal["done", "to resume", "failed before", "to do", "other settings"]


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is varied: numbers of annotated images, origins of the weights, seeds."""

    n: tuple[int, ...]
    inits: tuple[str, ...]
    seeds: tuple[int, ...]

    def runs(self) -> list[tuple[str, int, int]]:
        """All (init, n, seed), the small N first: they answer the question of the study."""
        return [(i, n, s) for n in self.n for s in self.seeds for i in self.inits]


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep, with the crops that it will be tested on."""

    experiment: Experiment
    workdir: Path
    crops: EvaluationCrops

    @property
    def name(self) -> str:
        """Name of the run: that of its folder."""
        return self.workdir.name

    @property
    def step(self) -> int:
        """Step of the last checkpoint, 0 without one."""
        folders = self.workdir.glob("checkpoints/*")
        return max((int(f.name) for f in folders if f.name.isdigit()), default=0)

    @property
    def state(self) -> State:
        """How far the run has come, read from its folder."""
        config = self.workdir / "config.json"
        if not config.exists():
            return "failed before" if (self.workdir / "failure.txt").exists() else "to do"
        if changed_settings(dataclasses.asdict(self.experiment), config):
            return "other settings"
        if read_summary(self.workdir) is not None:
            return "done"
        if (self.workdir / "failure.txt").exists():
            return "failed before"
        return "to resume"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep before it runs: `runs` in their order, the pretext run first if there is one.

    `description` is what `sweep.json` will hold. `isl_checkpoint` is a pretext run that was made
    elsewhere.
    """

    workdir: Path
    description: dict[str, Any]
    runs: tuple[PlannedRun, ...]
    isl_checkpoint: Path | None = None

    @property
    def remaining(self) -> tuple[PlannedRun, ...]:
        """Runs that have no scores yet, in order."""
        return tuple(run for run in self.runs if run.state != "done")

    def estimate(self) -> float | None:
        """Seconds that the remaining runs will take one after the other; None where nothing tells.

        From the speed of the runs that have trained here, or of the pretext run that is used: crop
        pixels a second, and the time that a run needs beside its steps.
        """
        speeds = self._speeds()
        if not speeds:
            return None
        speed = median(speeds.values())
        overheads = [o for f, s in speeds.items() if (o := _overhead(f, s)) is not None]
        overhead = median(overheads) if overheads else 0.0
        if any(run.experiment.train.num_steps == 0 for run in self.remaining):
            return None  # as long as a number of epochs, which the crops decide
        pixels = sum(
            (r.experiment.train.num_steps - r.step) * _pixels_of_step(r.experiment)
            for r in self.remaining
        )
        return pixels / speed + overhead * len(self.remaining)

    def _speeds(self) -> dict[Path, float]:
        folders = [run.workdir for run in self.runs]
        folders += [self.isl_checkpoint] if self.isl_checkpoint else []
        return {folder: speed for folder in folders if (speed := _pixels_per_second(folder))}

    def table(self) -> str:
        """The plan as text: one line a run, then how much is left."""
        states = [(run, run.state) for run in self.runs]
        width = max((len(run.name) for run in self.runs), default=3)
        lines = [f"{'run':{width}}  {'init':8}  {'N':>4}  {'seed':>4}  {'steps':>13}  state"]
        for run, state in states:
            experiment = run.experiment
            n = experiment.num_annotated if experiment.stage == "segment" else "–"
            steps = f"{run.step} of {experiment.train.num_steps or '?'}"
            lines.append(
                f"{run.name:{width}}  {experiment.init.kind:8}  {n:>4}  {experiment.seed:>4}  "
                f"{steps:>13}  {state}"
            )
        counts = {state: sum(s == state for _, s in states) for _, state in states}
        told = ", ".join(f"{count} {state}" for state, count in counts.items())
        lines.append(f"{len(states)} runs: {told}")
        if "other settings" in counts:
            lines.append(
                "runs with other settings will fail: use another --workdir, or repeat the settings"
            )
        if self.remaining:
            lines.append(f"time for the rest, one run after the other: {self._told_time()}")
        return "\n".join(lines)

    def _told_time(self) -> str:
        seconds = self.estimate()
        if seconds is None:
            return "not known" if self._speeds() else "not known until a run has trained here"
        minutes = math.ceil(seconds / 60)
        about = f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"
        return f"about {about}, at the speed of the runs so far"


def plan_sweep(
    pretrain: Experiment,
    segment: Experiment,
    grid: Grid,
    workdir: Path,
    *,
    isl_checkpoint: Path | None = None,
    stand_in: str | None = None,
) -> Plan:
    """Plan to pretrain once, then to train and test every run of the grid on the same crops.

    `isl_checkpoint` is a finished pretext run to use instead of pretraining. `stand_in` replaces
    `imagenet` where its weights cannot be had; without it the error of the download is raised.
    Raises FileNotFoundError for an `isl_checkpoint` without a model.
    """
    if isl_checkpoint and not any(
        (isl_checkpoint / name).exists() for name in ("model/model.json", "model.json")
    ):
        raise FileNotFoundError(
            f"{isl_checkpoint}: holds no model; name the workdir of a finished pretext run"
        )
    inits, reason = available_inits(grid.inits, source=segment.init.weights, stand_in=stand_in)
    grid = dataclasses.replace(grid, inits=inits)
    if reason and pretrain.init.kind == "imagenet":
        pretrain = _with_init(pretrain, kind=str(stand_in))
    crops = EvaluationCrops(
        size=segment.data.crop_size,
        per_image=segment.data.crops_per_image,
        margin=segment.data.margin,
        seed=pretrain.seed,
    )
    runs = []
    checkpoint = isl_checkpoint
    if ISL in grid.inits and checkpoint is None:
        checkpoint = workdir / "pretrain"
        runs.append(PlannedRun(pretrain, checkpoint, crops))
    for init, n, seed in grid.runs():
        experiment = dataclasses.replace(segment, seed=seed, num_annotated=n)
        experiment = _with_init(
            experiment, kind=init, checkpoint=str(checkpoint) if init == ISL else None
        )
        runs.append(PlannedRun(experiment, workdir / "runs" / run_name(init, n, seed), crops))
    description = {
        "study": segment.study,
        **dataclasses.asdict(grid),
        "data_root": segment.data.root,
        "test_crops": dataclasses.asdict(crops),
        "pretrain_init": pretrain.init.kind,
        "imagenet_stand_in": {"init": stand_in, "reason": reason} if reason else None,
    }
    return Plan(workdir, description, tuple(runs), isl_checkpoint)


def available_inits(
    inits: Sequence[str], *, source: str | None, stand_in: str | None
) -> tuple[tuple[str, ...], str | None]:
    """Replace `imagenet` by `stand_in` when its weights cannot be had.

    Returns the inits to run and the reason for a replacement. Without a stand-in the error of the
    download is raised.
    """
    if "imagenet" not in inits:
        return tuple(inits), None
    try:
        weights.load_imagenet(source)
    except (OSError, ValueError) as error:
        if stand_in is None:
            raise
        replaced = tuple(dict.fromkeys(stand_in if i == "imagenet" else i for i in inits))
        return replaced, " ".join(str(error).split())
    return tuple(inits), None


def _with_init(experiment: Experiment, **changes: Any) -> Experiment:
    init = InitSettings(**dataclasses.asdict(experiment.init) | changes)
    return dataclasses.replace(experiment, init=init)


def _pixels_of_step(experiment: Experiment) -> int:
    return experiment.train.batch_size * experiment.data.crop_size**2


def _pixels_per_second(workdir: Path) -> float | None:
    """Median training speed of a run; None when it has recorded none."""
    config = workdir / "config.json"
    if not config.exists():
        return None
    size = json.loads(config.read_text())["data"]["crop_size"]
    speeds = [r["images_per_second"] for r in _speeds(workdir)]
    return median(speeds) * size**2 if speeds else None


def _speeds(workdir: Path) -> Iterator[dict[str, Any]]:
    return (r for r in read_metrics(workdir) if r.get("images_per_second"))


def _overhead(workdir: Path, pixels_per_second: float) -> float | None:
    """Seconds that a run took beside its steps (compilation, calibration, evaluation)."""
    path = workdir / TIMING
    if not path.exists():
        return None
    timing = json.loads(path.read_text())
    config = json.loads((workdir / "config.json").read_text())
    pixels = timing["steps"] * config["train"]["batch_size"] * config["data"]["crop_size"] ** 2
    return max(0.0, timing["seconds"] - pixels / pixels_per_second)
