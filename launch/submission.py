"""The runs of a sweep as jobs of their own: an array on a cluster, or processes here."""

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from isl_jax.launch.configuration import configure_jax
from isl_jax.launch.memory import keep_freed_memory
from isl_jax.launch.processes import tell_devices
from isl_jax.study.planning import Plan, PlannedRun
from isl_jax.study.sweep import describe_sweep, run_one

_LOG_LEVEL = "SUBMITIT_LOG_LEVEL"


class Job:
    """One run of a sweep, to be called where it shall run; a job that was cut is resumed."""

    def __init__(self, run: PlannedRun) -> None:
        self.run = run

    def __call__(self) -> str | None:
        """Run it; returns what went wrong, if anything did."""
        keep_freed_memory()
        configure_jax()
        tell_devices()
        return run_one(self.run)

    def checkpoint(self) -> Any:
        """Come back with the same run when the cluster takes the node away or time is up."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def submit(
    plan: Plan,
    *,
    cluster: Literal["slurm", "local"],
    options: Mapping[str, Any],
    parallel: int | None = None,
) -> list[str]:
    """Hand the runs that are not done to `cluster`, at most `parallel` at once.

    `slurm`: the pretext run is one job, the others an array that waits for it; returns once they
    are queued. `local`: a process a run, one at a time unless `parallel` says more; returns one
    line for each run that failed. `options` are submitit's (`slurm_partition`, `gpus_per_node`,
    `timeout_min`, …). Logs go to `jobs/` in the sweep's folder. Raises ValueError without submitit,
    without a cluster, and for an unknown option.
    """
    executor = _executor(plan, cluster, options)
    describe_sweep(plan)
    remaining = plan.remaining
    pretext = [run for run in remaining if run.experiment.stage == "pretrain"]
    others = [run for run in remaining if run.experiment.stage != "pretrain"]
    if cluster == "local":
        failures = []
        size = parallel or 1
        for runs in (pretext, *(others[i : i + size] for i in range(0, len(others), size))):
            failures += [f for job in _queue(executor, runs) if (f := _outcome(*job)) is not None]
        return failures
    waiting: dict[str, Any] = {}
    for run, job in _queue(executor, pretext):
        print(f"{run.name}: job {job.job_id}")
        # Whatever becomes of it: runs that need its weights then say that they are missing.
        waiting = {"slurm_additional_parameters": {"dependency": f"afterany:{job.job_id}"}}
    if parallel is not None:
        waiting["slurm_array_parallelism"] = parallel
    executor.update_parameters(**waiting)
    for run, job in _queue(executor, others):
        print(f"{run.name}: job {job.job_id}")
    print(
        "queued; the same command tells with --dry_run how far they are, and resumes what was cut"
    )
    return []


def _executor(plan: Plan, cluster: str, options: Mapping[str, Any]) -> Any:
    submitit = _submitit(cluster)
    try:
        executor = submitit.AutoExecutor(folder=plan.workdir / "jobs", cluster=cluster)
        executor.update_parameters(name=f"isl-{plan.description['study']}", **options)
    except (NameError, RuntimeError) as error:
        raise ValueError(f"--executor={cluster}: {' '.join(str(error).split())}") from error
    return executor


def _submitit(cluster: str) -> Any:
    # Its own set-up of logging would close the handlers of all others, and their streams with them.
    chosen = os.environ.get(_LOG_LEVEL)
    os.environ[_LOG_LEVEL] = "NOCONFIG"
    try:
        return importlib.import_module("submitit")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--executor={cluster} needs submitit, which is not installed: "
            "pip install 'isl-jax[slurm]'"
        ) from error
    finally:
        del os.environ[_LOG_LEVEL]
        if chosen is not None:
            os.environ[_LOG_LEVEL] = chosen


def _queue(executor: Any, runs: Sequence[PlannedRun]) -> list[tuple[PlannedRun, Any]]:
    if not runs:
        return []
    with executor.batch():
        jobs = [executor.submit(Job(run)) for run in runs]
    return list(zip(runs, jobs, strict=True))


def _outcome(run: PlannedRun, job: Any) -> str | None:
    try:
        return job.result()
    except Exception as error:  # the process of the job died: out of memory, killed, …
        last = str(error).strip().splitlines() or [type(error).__name__]
        return f"{run.name}: its process ended early ({last[-1]}); see {job.paths.stderr}"
