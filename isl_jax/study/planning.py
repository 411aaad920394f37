"""What a sweep is going to do: its runs, how far each has come, how long the rest will take."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from isl_jax.data.crops import CropPlan
from isl_jax.inference.stored import locate
from isl_jax.models import imagenet
from isl_jax.models.heads import Head
from isl_jax.study.annotated import SUGGESTION
from isl_jax.study.duration import seconds_for, speeds_of
from isl_jax.study.grid import Grid
from isl_jax.study.records import (
    ISL,
    SWEEP,
    read_summary,
    read_sweep,
    recorded_crops,
    recorded_tta,
    run_name,
    told_change,
)
from isl_jax.study.settings import Experiment
from isl_jax.study.shared_alpha import ALPHA, SharedAlpha
from isl_jax.study.workdir import CONFIG, changed_settings
from isl_jax.training.checkpoint import latest_step

# What went wrong in a run of a sweep, in its folder.
FAILURE = "failure.txt"

State = Literal["done", "to score", "to resume", "failed before", "to do", "other settings"]


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep, with what it shares with others: test crops, alpha, order of fields."""

    experiment: Experiment
    workdir: Path
    crops: CropPlan
    alpha: SharedAlpha | None = None
    suggestion: Path | None = None

    @property
    def name(self) -> str:
        """Name of the run: that of its folder."""
        return self.workdir.name

    @property
    def step(self) -> int:
        """Step of the last checkpoint, 0 without one."""
        return latest_step(self.workdir) or 0

    @property
    def state(self) -> State:
        """How far the run has come, read from its folder."""
        config, has_failed = self.workdir / CONFIG, (self.workdir / FAILURE).exists()
        if not config.exists():
            return "failed before" if has_failed else "to do"
        if changed_settings(self.experiment.to_json(), config):
            return "other settings"
        summary = read_summary(self.workdir)
        if summary is not None:
            # Scores of other crops, or augmented otherwise, are no scores of this sweep; earlier
            # versions named no crops.
            is_ours = recorded_crops(summary) in (None, self.crops)
            is_ours &= recorded_tta(summary) == self.experiment.instances.tta
            return "done" if is_ours else "to score"
        return "failed before" if has_failed else "to resume"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep before it runs: `runs` in their order, the pretext run first if there is one.

    `description` is what `sweep.json` will hold, `isl_checkpoint` a pretext run made elsewhere.
    """

    workdir: Path
    description: dict[str, Any]
    runs: tuple[PlannedRun, ...]
    isl_checkpoint: str | None = None

    @property
    def remaining(self) -> tuple[PlannedRun, ...]:
        """Runs that have no scores yet, in order."""
        return tuple(run for run in self.runs if run.state != "done")

    def estimate(self) -> float | None:
        """Seconds that the remaining runs will take one after the other; None where nothing tells.

        From the crop pixels a second of runs so far, and what a run takes beside its steps.
        """
        return seconds_for([(run.experiment, run.step) for run in self.remaining], self._folders())

    def _folders(self) -> list[Path]:
        elsewhere = [Path(self.isl_checkpoint)] if self.isl_checkpoint else []
        return [*(run.workdir for run in self.runs), *elsewhere]

    def table(self) -> str:
        """The plan as text: one line a run, then how much is left."""
        states = [(run, run.state) for run in self.runs]
        width = max((len(run.name) for run in self.runs), default=3)
        lines = [f"{'run':{width}}  {'init':8}  {'N':>4}  {'seed':>4}  {'steps':>13}  state"]
        for run, state in states:
            of = run.experiment
            n = "–" if of.is_pretext else of.num_annotated
            steps = f"{run.step} of {of.train.num_steps or '?'}"
            told = f"{of.init.kind:8}  {n:>4}  {of.seed:>4}  {steps:>13}  {state}"
            lines.append(f"{run.name:{width}}  {told}")
        counts = Counter(state for _, state in states)
        told = ", ".join(f"{count} {state}" for state, count in counts.items())
        lines.append(f"{len(states)} runs: {told}")
        if "other settings" in counts:
            lines.append("other settings fail: repeat the settings, or use another --workdir")
        if self.remaining:
            lines.append(f"time for the rest, one run after the other: {self._told_time()}")
        return "\n".join(lines)

    def _told_time(self) -> str:
        seconds = self.estimate()
        if seconds is None:
            has_trained = bool(speeds_of(self._folders()))
            return "not known" if has_trained else "not known until a run has trained here"
        minutes = math.ceil(seconds / 60)
        about = f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"
        return f"about {about}, at the speed of the runs so far"


def plan_sweep(
    pretrain: Experiment,
    segment: Experiment,
    grid: Grid,
    workdir: Path,
    *,
    isl_checkpoint: str | None = None,
    stand_in: str | None = None,
) -> Plan:
    """Plan to pretrain once, then to train and test every run of the grid on the same crops.

    `isl_checkpoint` is a finished pretext run to use instead of pretraining. `stand_in` replaces
    `imagenet`, in the grid and in the pretext run, where its weights cannot be had; without it the
    error of the download is raised. Raises FileNotFoundError for an `isl_checkpoint` without a
    model, ValueError for a sweep that has scores on other crops.
    """
    if isl_checkpoint:
        locate(isl_checkpoint)  # fetched, where it is elsewhere, before any run
    crops = dataclasses.replace(segment.crop_plan, seed=pretrain.seed)
    pretext = PlannedRun(pretrain, workdir / "pretrain", crops)
    plans_pretext = ISL in grid.inits and isl_checkpoint is None
    # Where the pretext training is on its way, its first weights are not needed again.
    begins = pretext.step == 0 or pretext.state == "other settings"
    needs_imagenet = pretrain.init.kind == "imagenet" and begins
    reason = None
    if "imagenet" in grid.inits or (plans_pretext and needs_imagenet):
        reason = missing_imagenet(segment, stand_in)
    if reason:
        inits = [str(stand_in) if init == "imagenet" else init for init in grid.inits]
        grid = dataclasses.replace(grid, inits=tuple(dict.fromkeys(inits)))
    if reason and needs_imagenet:
        pretext = dataclasses.replace(pretext, experiment=_with_init(pretrain, str(stand_in)))

    runs = [pretext] if plans_pretext else []
    checkpoint = str(isl_checkpoint or pretext.workdir)
    head = _with_init(segment, ISL, checkpoint).head
    segment = _chosen_with(segment, checkpoint if ISL in grid.inits else None)
    alpha = _shared_alpha(_with_head(segment, head), grid, workdir)
    for arm, n, seed in grid.runs(head):
        experiment = dataclasses.replace(segment, seed=seed, num_annotated=n)
        experiment = _with_init(experiment, arm.init, checkpoint if arm.init == ISL else None)
        experiment = _with_head(experiment, arm.head)
        folder = workdir / "runs" / run_name(arm.name, n, seed)
        runs.append(PlannedRun(experiment, folder, crops, alpha, workdir / SUGGESTION))
    _refuse_other_crops(workdir, runs, crops)
    description = {
        "study": segment.study,
        **dataclasses.asdict(grid),
        "head": head,
        "arms": [arm.name for arm in grid.arms(head)],
        "data_root": segment.data.root,
        "test_crops": dataclasses.asdict(crops),
        "pretrain_init": pretext.experiment.init.kind,
        "imagenet_stand_in": {"init": stand_in, "reason": reason} if reason else None,
    }
    return Plan(workdir, description, tuple(runs), isl_checkpoint)


def missing_imagenet(experiment: Experiment, stand_in: str | None) -> str | None:
    """Why the ImageNet weights of the run's encoder cannot be had; None if they can.

    Without a `stand_in` the error of the download is raised.
    """
    try:
        imagenet.load_imagenet(experiment.init.weights, encoder=experiment.model.encoder)
    except (OSError, ValueError) as error:
        if stand_in is None:
            raise
        return " ".join(str(error).split())
    return None


def _refuse_other_crops(workdir: Path, runs: Sequence[PlannedRun], crops: CropPlan) -> None:
    # Runs scored by earlier versions do not name their crops: the sweep does.
    before = recorded_crops(read_sweep(workdir)) if (workdir / SWEEP).exists() else None
    if before in (None, crops) or all(read_summary(run.workdir) is None for run in runs):
        return
    raise ValueError(
        f"{workdir / SWEEP}: the runs of this sweep were scored on other test crops "
        f"({told_change(before, crops)}): use another --workdir, or repeat the settings"
    )


def _with_init(experiment: Experiment, kind: str, checkpoint: str | None = None) -> Experiment:
    init = dataclasses.replace(experiment.init, kind=kind, checkpoint=checkpoint)
    return dataclasses.replace(experiment, init=init)


def _with_head(experiment: Experiment, head: Head) -> Experiment:
    return dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, head=head))


def _chosen_with(segment: Experiment, checkpoint: str | None) -> Experiment:
    """Fields are suggested by the pretext run of the sweep, in every arm the same."""
    data = segment.data
    if data.choose == "random" or data.choose_with:
        return segment
    return dataclasses.replace(segment, data=dataclasses.replace(data, choose_with=checkpoint))


def _shared_alpha(segment: Experiment, grid: Grid, workdir: Path) -> SharedAlpha | None:
    if not (segment.task.has_distance and segment.loss.alpha == "auto"):
        return None
    first = dataclasses.replace(segment, seed=grid.seeds[0], num_annotated=min(grid.n))
    return SharedAlpha(workdir / ALPHA, _with_init(first, "random"))
