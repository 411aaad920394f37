"""A grid of runs, N x init x seed, on one data set: the study of figures 7 and 9."""

import dataclasses
import json
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isl_jax.data.store import open_dataset
from isl_jax.models import weights
from isl_jax.study.environment import write_json
from isl_jax.study.evaluate import evaluate_run
from isl_jax.study.experiment import Experiment, InitSettings, run_experiment
from isl_jax.study.results import run_name
from isl_jax.training.loop import InterruptedTrainingError


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is varied: numbers of annotated images, origins of the weights, seeds."""

    n: tuple[int, ...]
    inits: tuple[str, ...]
    seeds: tuple[int, ...]

    def runs(self) -> list[tuple[str, int, int]]:
        """All (init, n, seed), the small N first: they answer the question of the study."""
        return [(i, n, s) for n in self.n for s in self.seeds for i in self.inits]


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


def _is_done(experiment: Experiment, workdir: Path) -> bool:
    config, summary = workdir / "config.json", workdir / "evaluation" / "summary.json"
    if not (config.exists() and summary.exists()):
        return False
    return json.loads(config.read_text()) == json.loads(json.dumps(dataclasses.asdict(experiment)))


def _run_one(experiment: Experiment, workdir: Path, test_crop_seed: int) -> str | None:
    """Train and evaluate one run unless it is done; returns what went wrong, if anything did."""
    failure = workdir / "failure.txt"
    if _is_done(experiment, workdir):
        print(f"{workdir.name}: done before")
        return None
    try:
        run_experiment(experiment, workdir)
        evaluate_run(
            workdir,
            open_dataset(Path(str(experiment.data.root))),
            crops_per_image=experiment.data.crops_per_image,
            crop_size=experiment.data.crop_size,
            margin=experiment.data.margin,
            seed=test_crop_seed,
        )
    except InterruptedTrainingError:
        raise
    except Exception as error:  # one bad run must not cost the others
        workdir.mkdir(parents=True, exist_ok=True)
        failure.write_text(traceback.format_exc())
        return f"{workdir.name}: {type(error).__name__}: {error}"
    failure.unlink(missing_ok=True)
    return None


def run_sweep(
    pretrain: Experiment,
    segment: Experiment,
    grid: Grid,
    workdir: Path,
    *,
    isl_checkpoint: Path | None = None,
    stand_in: str | None = None,
) -> list[str]:
    """Pretrain once, then train and evaluate every run of the grid; skip what is done.

    `isl_checkpoint` is a finished pretext run to use instead of pretraining. All runs are tested on
    the same crops of the same withheld fields. `stand_in` replaces `imagenet` where its weights
    cannot be had. Returns one line for each run that failed.
    """
    inits, reason = available_inits(grid.inits, source=segment.init.weights, stand_in=stand_in)
    grid = dataclasses.replace(grid, inits=inits)
    if reason:
        print(f"{stand_in} stands in for imagenet: {reason}")
        if pretrain.init.kind == "imagenet":
            pretrain = _with_init(pretrain, kind=str(stand_in))
    workdir.mkdir(parents=True, exist_ok=True)
    description: dict[str, Any] = {
        "study": segment.study,
        **dataclasses.asdict(grid),
        "data_root": segment.data.root,
        "pretrain_init": pretrain.init.kind,
        "imagenet_stand_in": {"init": stand_in, "reason": reason} if reason else None,
    }
    write_json(workdir / "sweep.json", description)
    failures = []
    if "isl" in grid.inits and isl_checkpoint is None:
        isl_checkpoint = workdir / "pretrain"
        failure = _run_one(pretrain, isl_checkpoint, pretrain.seed)
        failures += [failure] if failure else []
    for init, n, seed in grid.runs():
        experiment = dataclasses.replace(segment, seed=seed, num_annotated=n)
        checkpoint = str(isl_checkpoint) if init == "isl" else None
        experiment = _with_init(experiment, kind=init, checkpoint=checkpoint)
        failure = _run_one(experiment, workdir / "runs" / run_name(init, n, seed), pretrain.seed)
        failures += [failure] if failure else []
    return failures


def _with_init(experiment: Experiment, **changes: Any) -> Experiment:
    init = InitSettings(**dataclasses.asdict(experiment.init) | changes)
    return dataclasses.replace(experiment, init=init)
