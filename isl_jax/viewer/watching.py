"""How far a training has come, read from its folder: whoever started it, whether or not it runs."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from isl_jax.data.description import DESCRIPTION
from isl_jax.files import read_json
from isl_jax.locks import User, user_of
from isl_jax.study.records import read_metrics, read_summary
from isl_jax.study.workdir import CONFIG
from isl_jax.training.checkpoint import latest_step
from isl_jax.viewer.commands import CommandLine, command_line

# Folders of the two trainings below that of the step.
PRETEXT, SEGMENT = "pretrain", "segment"
_CONFIG = {"train": {"batch_size": int, "num_steps": (int, None)}, "data": {"root": str}}

Curve = list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One of the two trainings: the last step that it told of, of how many, its losses, its pace.

    `num_steps` is None until the run has begun, and where it is as long as a number of epochs.
    """

    name: str
    workdir: Path
    step: int = 0
    num_steps: int | None = None
    batch_size: int = 1
    images_per_second: float | None = None
    losses: Curve = dataclasses.field(default_factory=list)
    validation: Curve = dataclasses.field(default_factory=list)
    is_done: bool = False
    checkpoint: int | None = None

    @property
    def seconds_left(self) -> float | None:
        """As long as the steps that are left take at the pace of the last ones."""
        if self.is_done:
            return 0.0
        if not self.images_per_second or not self.num_steps:
            return None
        return max(0, self.num_steps - self.step) * self.batch_size / self.images_per_second

    @property
    def told(self) -> str:
        """`pretrain: step 120 of 400, 5.1 images/s, about 6 min left`."""
        if self.is_done:
            return f"{self.name}: done, {self.step} steps"
        words = [f"{self.name}: step {self.step}" + f" of {self.num_steps}" * bool(self.num_steps)]
        if self.images_per_second:
            words.append(f"{self.images_per_second:.1f} images/s")
        if (seconds := self.seconds_left) is not None:
            words.append(f"about {_told_time(seconds)} left")
        return ", ".join(words)


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """A folder with both stages, who works in it, and the score once there is one."""

    folder: Path
    stages: tuple[Stage, Stage]
    user: User | None
    score: str | None = None

    @property
    def current(self) -> Stage:
        """The stage that is under way, or would be."""
        return next((stage for stage in self.stages if not stage.is_done), self.stages[-1])

    @property
    def is_running(self) -> bool:
        """Whether somebody works in the folder."""
        return self.user is not None

    @property
    def is_done(self) -> bool:
        """Whether both trainings have ended."""
        return all(stage.is_done for stage in self.stages)

    @property
    def told(self) -> str:
        """What to say of it, in lines."""
        lines = [stage.told for stage in self.stages if stage.step or stage.is_done]
        if self.user is not None:
            where = "" if self.user.is_here else f" on {self.user.host}"
            lines.append(f"running{where} since {self.user.since}")
        elif lines and not self.is_done:
            lines.append("not running: Start goes on from the last checkpoint")
        if self.score:
            lines.append(f"withheld fields: {self.score}")
        return "\n".join(lines)


def look(folder: Path) -> TrainingState:
    """How far the training in a folder has come."""
    stages = (_stage(folder / PRETEXT), _stage(folder / SEGMENT))
    places = (folder, *(stage.workdir for stage in stages))
    user = next((user for place in places if (user := user_of(place))), None)
    summary = read_summary(folder / SEGMENT)
    score = None
    if summary is not None:
        mean, metric = summary["fields"]["mean"], summary["metric"]
        name = "mAP" if metric == "map" else metric.upper()
        score = f"{name} {mean:.2f} over {summary['fields']['count']}" if mean is not None else None
    return TrainingState(folder, stages, user, score)


def _stage(workdir: Path) -> Stage:
    stage = Stage(workdir.name, workdir)
    if not (workdir / CONFIG).exists():
        return stage
    config = read_json(workdir / CONFIG, remedy="use another folder", keys=_CONFIG)["train"]
    lines = read_metrics(workdir)
    paces = [line["images_per_second"] for line in lines if "images_per_second" in line]
    ended = bool(lines) and lines[-1].get("split") == "run"
    return dataclasses.replace(
        stage,
        step=max((line["step"] for line in lines), default=0),
        num_steps=config["num_steps"] or None,
        batch_size=config["batch_size"],
        images_per_second=paces[-1] if paces else None,
        losses=_curve(lines, "train"),
        validation=_curve(lines, "validation"),
        is_done=ended and (workdir / "model" / "model.json").exists(),
        checkpoint=latest_step(workdir),
    )


def _curve(lines: list[dict[str, Any]], split: str) -> Curve:
    of_split = [line for line in lines if line.get("split") == split]
    pairs = ((line["step"], line.get("loss")) for line in of_split)
    return [(step, loss) for step, loss in pairs if isinstance(loss, float) and math.isfinite(loss)]


def _told_time(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """What the step Train is asked for; None and empty stand for what the configuration says."""

    data: str
    folder: str
    config: str = "configs/cell.py"
    init: str = "imagenet"
    num_annotated: int = 1
    pretrain_steps: int | None = None
    segment_steps: int | None = None
    crop_size: int | None = None
    batch_size: int | None = None
    encoder: str | None = None
    scores: bool = True

    def commands(self) -> list[CommandLine]:
        """The pretext training, the segmentation from its weights, and the scores."""
        folder = Path(self.folder or "FOLDER")
        config = f"{self.config}{',' if ':' in self.config else ':'}"
        pretext, segment = folder / PRETEXT, folder / SEGMENT
        shared = {
            "config.data.root": self.data or "DATA",
            "config.data.crop_size": self.crop_size,
            "config.train.batch_size": self.batch_size,
            "config.model.encoder": self.encoder,
        }
        first = command_line("train", {
            "config": f"{config}pretrain,init={self.init}",
            **shared,
            "config.train.num_steps": self.pretrain_steps,
            "workdir": pretext,
        })  # fmt: skip
        second = command_line("train", {
            "config": f"{config}segment,init=isl,n={self.num_annotated}",
            "config.init.checkpoint": pretext,
            **shared,
            "config.train.num_steps": self.segment_steps,
            "workdir": segment,
        })  # fmt: skip
        last = command_line("evaluate", {"workdir": segment})
        return [first, second, last] if self.scores else [first, second]


def is_newer(data: Path, folder: Path) -> bool:
    """Whether a data set has been prepared again since a training in `folder` began."""
    config, described = folder / SEGMENT / CONFIG, data / DESCRIPTION
    if not (config.exists() and described.exists()):
        return False
    return described.stat().st_mtime > config.stat().st_mtime
