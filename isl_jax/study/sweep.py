"""A grid of runs, N x arm x seed, on one data set: the study of figures 7 and 9."""

import sys
import time
import traceback
from pathlib import Path

from isl_jax.data.store import open_dataset
from isl_jax.files import write_json, write_text
from isl_jax.locks import InUseError, locked
from isl_jax.study.duration import TIMING
from isl_jax.study.evaluate import evaluate_run
from isl_jax.study.experiment import run_experiment
from isl_jax.study.planning import FAILURE, Plan, PlannedRun
from isl_jax.study.records import SWEEP
from isl_jax.training.stopping import InterruptedTrainingError


def run_sweep(plan: Plan) -> list[str]:
    """Train and evaluate every run of the plan in this process, one after the other.

    What is done is skipped, what was cut is resumed, and a run that fails does not keep the others
    from finishing. Returns one line for each run that failed.
    """
    describe_sweep(plan)
    failures = [run_one(run) for run in plan.runs]
    return [failure for failure in failures if failure is not None]


def describe_sweep(plan: Plan) -> None:
    """Write `sweep.json`, which tells the report what the sweep is about."""
    stand_in = plan.description["imagenet_stand_in"]
    if stand_in:
        print(f"{stand_in['init']} stands in for imagenet: {stand_in['reason']}")
    plan.workdir.mkdir(parents=True, exist_ok=True)
    write_json(plan.workdir / SWEEP, plan.description)


def run_one(run: PlannedRun) -> str | None:
    """Train and evaluate one run unless it is done; returns what went wrong, if anything did.

    What went wrong stays in `failure.txt`, how long it took in `timing.json`. Raises
    InterruptedTrainingError when it was told to stop.
    """
    failure = run.workdir / FAILURE
    if run.state == "done":
        failure.unlink(missing_ok=True)
        print(f"{run.name}: done before")
        return None
    started, first_step = time.perf_counter(), run.step
    try:
        with locked(run.workdir, "use another --workdir"):
            alpha = run.alpha.value() if run.alpha else None
            run_experiment(run.experiment, run.workdir, alpha=alpha, suggestion=run.suggestion)
            dataset = open_dataset(Path(run.experiment.data.root))
            evaluate_run(run.workdir, dataset, run.crops)
    except InterruptedTrainingError:
        raise
    except InUseError as error:  # which is no failure of the run
        print(f"{run.name}: {error}\nthe other runs go on", file=sys.stderr)
        return f"{run.name}: {error}"
    except Exception as error:  # one bad run must not cost the others
        run.workdir.mkdir(parents=True, exist_ok=True)
        write_text(failure, traceback.format_exc())
        told = f"{run.name}: {type(error).__name__}: {error}"
        print(f"{told}\nthe other runs go on", file=sys.stderr)
        return told
    failure.unlink(missing_ok=True)
    timing = {"seconds": time.perf_counter() - started, "steps": run.step - first_step}
    write_json(run.workdir / TIMING, timing)
    return None
