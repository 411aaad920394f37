"""Training and prediction on the accelerator that is here, in nine minutes: `make bench-gpu`.

Steps beside the share of the bound that `compile` computes, with --peer beside PyTorch: eager
float32 as the reference has it, and its best (channels_last, bf16 autocast, `torch.compile`, fused
Adam). Then prediction, the loader, and whether a resumed training ends in the same bits. Every part
runs in a process of its own, which has the device for itself; a part that fails, or for which the
time does not suffice, is named and the others run.
"""

import dataclasses
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.launch.benchmarks import _crop_loaders as loaders
from isl_jax.launch.benchmarks import _torch_steps, predict
from isl_jax.launch.benchmarks._hlo import Program
from isl_jax.launch.benchmarks._torch_steps import crops, images_a_second
from isl_jax.launch.benchmarks.compile import TARGETS, bounds

_BUDGET_SECONDS = 530.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured: crops a batch × side, computed in, for how many seconds each."""

    sizes: tuple[tuple[int, int], ...] = ((10, 512), (32, 512))
    dtypes: tuple[str, ...] = ("bfloat16", "float32")
    encoder: str = "densenet121"
    seconds: float = 4.0
    train_steps: int = 40


def main(*, peer: bool, plan: Plan | None = None) -> dict:
    """Print a table; returns the figures, an `error` in place of those that are lacking."""
    plan = plan or Plan()
    end = time.monotonic() + _BUDGET_SECONDS
    figures: dict[str, Any] = {"device": _apart(_device, (), end), "rows": []}
    print(f"{figures['device']}, {plan.encoder}")
    for dtype in plan.dtypes:
        for batch, size in plan.sizes:
            of = (plan, batch, size, dtype)
            row = {"dtype": dtype, "batch": batch, "size": size, "ours": _apart(_step, of, end)}
            if peer:
                for kind, best in (("peer", True), ("reference", False)):
                    asked = (plan.encoder, batch, size, dtype, best, plan.seconds)
                    if best or dtype == "float32":
                        row[kind] = _apart(_torch_steps.measure, asked, end)
            figures["rows"].append(row)
            print("\n".join(_lines(row)), flush=True)
    for name, part in (("training", _training), ("predict", _predict)):
        figures[name] = _apart(part, (plan,), end)
        print(f"{name}: {figures[name]}", flush=True)
    return figures


def _apart(function: Callable[..., dict], arguments: tuple, end: float) -> dict:
    left = end - time.monotonic()
    if left < 1:
        return {"error": "no time was left"}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        try:
            return pool.apply_async(function, arguments).get(left)
        except multiprocessing.TimeoutError:
            return {"error": f"not done in the {left:.0f} s that were left"}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def _lines(row: dict[str, Any]) -> Iterator[str]:
    for name in ("ours", "peer", "reference"):
        if name in row:
            label = f"{row['dtype']} {row['batch']}×{row['size']}² {name}"
            yield f"{label:<32}" + ", ".join(f"{key} {_told(v)}" for key, v in row[name].items())


def _told(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _device() -> dict[str, Any]:
    import jax

    return {"device": jax.devices()[0].device_kind, "jax": jax.__version__}


def _prepared(plan: Plan, batch: int, dtype: str, *, steps: int) -> tuple[Any, Any, Any]:
    import jax.numpy as jnp

    from isl_jax.models.heads import build_network
    from isl_jax.models.variables import init_variables
    from isl_jax.training.settings import TrainSettings

    network = build_network(out_channels=1, encoder=plan.encoder, compute_dtype=jnp.dtype(dtype))
    settings = TrainSettings(batch, 1e-3, num_steps=steps, log_every=5, keep="last")
    return network, init_variables(network, in_channels=3, seed=0), settings


def _step(plan: Plan, batch: int, size: int, dtype: str) -> dict[str, float]:
    """Pace of the compiled step; seconds to compile it with an empty and with a filled cache."""
    import jax

    from isl_jax.task import Kind, Task
    from isl_jax.training.devices import data_mesh, shard_batch
    from isl_jax.training.losses import loss_parameters
    from isl_jax.training.step import create_state, make_train_step

    network, variables, settings = _prepared(plan, batch, dtype, steps=10**6)
    mesh = data_mesh(jax.devices()[:1])
    images, target = crops(batch, size)
    data = shard_batch({"image": images, "target": target, "weight": np.ones_like(target)}, mesh)
    state = create_state(variables, settings, mesh, loss_parameters(Task(Kind.STAIN)))
    seconds = []
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        for _ in range(2):
            jax.clear_caches()
            began = time.perf_counter()
            step = make_train_step(network, Kind.STAIN, settings).lower(state, data).compile()  # pyright: ignore[reportFunctionMemberAccess]
            seconds.append(time.perf_counter() - began)
        jax.config.update("jax_compilation_cache_dir", None)

    def run(times: int) -> None:
        nonlocal state
        for _ in range(times):
            state, metrics = step(state, data)
        jax.block_until_ready((state, metrics))

    pace = images_a_second(run, batch, plan.seconds)
    figures = {"images/s": pace, "ms": 1e3 * batch / pace}
    figures |= {"compile cold, s": seconds[0], "compile warm, s": seconds[1]}
    kind = jax.devices()[0].device_kind.lower()
    for name, target_device in TARGETS.items():
        if name in kind.replace(" ", ""):
            bound = bounds(Program(step.as_text() or ""), target_device, dtype)["launch_bound_ms"]
            figures["share of the bound"] = bound / figures["ms"]
    return figures


def _training(plan: Plan) -> dict[str, Any]:
    """Pace and wait for data of a training from files; whether one that was cut ends the same."""
    import jax

    from isl_jax.task import Kind, Task
    from isl_jax.training.devices import TrainingData
    from isl_jax.training.loop import train
    from isl_jax.training.settings import RunSettings
    from isl_jax.training.step import make_train_step
    from isl_jax.training.stopping import InterruptedTrainingError

    network, variables, settings = _prepared(
        plan, loaders.BATCH, plan.dtypes[0], steps=plan.train_steps
    )
    kept: dict[str, Any] = {}

    def run(name: str, batches: Any) -> None:
        def keep(arrays: Any, summary: dict[str, Any]) -> None:
            kept[name] = arrays, summary["throughput"]

        workdir = folder / name
        workdir.mkdir(exist_ok=True)
        task, data = Task(Kind.STAIN), TrainingData(batches)
        train(
            network, variables, task, data, settings, RunSettings(),
            workdir=workdir, save_model=keep,
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loaders.write_store(folder)
        run("whole", loaders.ours(folder))
        try:
            run("cut", _Cut(loaders.ours(folder), plan.train_steps // 2))
        except InterruptedTrainingError:
            kept.pop("cut", None)
        make_train_step.cache_clear()  # as a new process: compiled anew
        jax.clear_caches()
        run("cut", loaders.ours(folder))
    pairs = zip(jax.tree.leaves(kept["whole"][0]), jax.tree.leaves(kept["cut"][0]), strict=True)
    equal = all(np.array_equal(a, b) for a, b in pairs)
    return {"resumed training has the same bits": equal} | kept["whole"][1]


class _Cut:
    """Batches during one of which the training is told to stop, as a cluster does."""

    def __init__(self, batches: Any, at: int) -> None:
        self._batches, self._left = batches, at

    def __next__(self) -> Any:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return next(self._batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)


def _predict(plan: Plan) -> dict[str, Any]:
    """Seconds a field from files to labels, and of its parts one after the other."""
    return predict.main(peer=False, encoder=plan.encoder)
