"""One training step and one forward pass of the network, beside PyTorch's best CPU form of it.

float32, the same weights and batches, two threads each, steps of ours and the peer's alternating.
The peer: channels_last, in-place ReLUs, fused Adam. Both keep the memory they free, as isl-train.
"""

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from isl_jax.launch.memory import keep_freed_memory

_SIZES = ((2, 256), (4, 512))  # crops a batch, side of a crop
_THREADS = 2
_ROUNDS = {256: 9, 512: 5}

Step = Callable[[], None]


def main(*, peer: bool) -> dict:
    """Print the table: wall and processor time (ms), peer's over ours' inverse, peak memory."""
    _share_machine()
    figures: dict[str, Any] = {"cpu_threads": _THREADS, "rows": []}
    # First what runs in children: this process keeps the gigabytes that its steps have freed.
    figures["memory_mib"] = {"ours": _in_child(_memory, _our_steps)}
    if peer:
        figures["memory_mib"]["peer"] = _in_child(_memory, _peer_steps)
    batch, size = _SIZES[-1]
    print(f"peak memory of a training step at {batch}×{size}², MiB: {figures['memory_mib']}")
    with tempfile.TemporaryDirectory() as cache:
        figures["start_s"] = {kind: _in_child(_start, cache) for kind in ("cold", "warm")}
    print(f"first step at {batch}×{size}² (trace, compile, run), s: {figures['start_s']}")
    print(f"{'':<24}{'ours ms':>9}{'cpu ms':>9}{'peer ms':>9}{'cpu ms':>9}{'ratio':>7}{'cpu':>6}")
    for batch, size in _SIZES:
        ours = _our_steps(batch, size)
        theirs = _peer_steps(batch, size) if peer else {}
        for kind, step in ours.items():
            row = _alternate(step, theirs.get(kind), _ROUNDS[size])
            row |= {"kind": kind, "batch": batch, "size": size}
            figures["rows"].append(row)
            print(_line(row), flush=True)
    return figures


def _share_machine() -> None:
    """Both frameworks get the same two cores and allocator; before either starts its threads."""
    keep_freed_memory()
    cores = sorted(os.sched_getaffinity(0))[:_THREADS]
    os.sched_setaffinity(0, cores)


def _alternate(ours: Step, theirs: Step | None, rounds: int) -> dict[str, float]:
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "peer": []}
    for index in range(rounds + 1):
        for name, step in (("ours", ours), ("peer", theirs)):
            if step is None:
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            elapsed = time.perf_counter() - wall, time.process_time() - cpu
            # The first round compiles, or chooses kernels.
            if index:
                times[name].append((1e3 * elapsed[0], 1e3 * elapsed[1]))
    row = {}
    for name, pairs in times.items():
        if pairs:
            row[f"{name}_ms"], row[f"{name}_cpu_ms"] = (median(p[i] for p in pairs) for i in (0, 1))
    if times["peer"]:
        pairs = list(zip(times["ours"], times["peer"], strict=True))
        row["ratio"], row["cpu_ratio"] = (median(a[i] / b[i] for a, b in pairs) for i in (0, 1))
    return row


def _line(row: dict[str, Any]) -> str:
    label = f"{row['kind']} {row['batch']}×{row['size']}²"
    columns = ("ours_ms", "ours_cpu_ms", "peer_ms", "peer_cpu_ms")
    text = f"{label:<24}" + "".join(f"{row[c]:>9.0f}" for c in columns if c in row)
    return text + (f"{row['ratio']:>7.2f}{row['cpu_ratio']:>6.2f}" if "ratio" in row else "")


def _batch(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, size, size, 3), np.float32)
    return images, rng.random((batch, size, size, 1), np.float32)


def _variables() -> tuple[Any, Any]:
    from isl_jax.models.heads import build_network
    from isl_jax.models.variables import init_variables

    network = build_network(out_channels=1)
    return network, init_variables(network, in_channels=3, seed=0)


def _our_steps(batch: int, size: int) -> dict[str, Step]:
    """The project's own compiled step, and its forward pass."""
    import jax

    from isl_jax.task import Kind, Task
    from isl_jax.training.devices import data_mesh, shard_batch
    from isl_jax.training.losses import loss_parameters
    from isl_jax.training.settings import TrainSettings
    from isl_jax.training.step import create_state, make_train_step

    network, variables = _variables()
    settings = TrainSettings(batch, learning_rate=1e-3, num_steps=100)
    mesh = data_mesh(jax.devices()[:1])
    images, target = _batch(batch, size)
    data = {"image": images, "target": target, "weight": np.ones_like(target)}
    data = shard_batch(data, mesh)
    train_step = make_train_step(network, Kind.STAIN, settings)
    apply = jax.jit(lambda variables, x: network.apply(variables, x, train=False))
    parameters = loss_parameters(Task(Kind.STAIN))
    state = create_state(variables, settings, mesh, parameters)
    evaluated = jax.device_put(variables)

    def train() -> None:
        nonlocal state
        state, metrics = train_step(state, data)
        jax.block_until_ready((state, metrics))

    def forward() -> None:
        jax.block_until_ready(apply(evaluated, data["image"]))

    return {"train step": train, "forward": forward}


def _peer_steps(batch: int, size: int) -> dict[str, Step]:
    import torch

    from isl_jax.launch.benchmarks._torch_unet import TorchUNet
    from isl_jax.models.architecture import encoder_config
    from isl_jax.models.port import torch_from_variables

    torch.set_num_threads(_THREADS)
    state_dict = torch_from_variables(_variables()[1])
    networks = []
    for _ in range(2):
        network = TorchUNet(1, encoder_config("densenet121"))
        tensors = {name: torch.from_numpy(array.copy()) for name, array in state_dict.items()}
        network.load_state_dict(tensors, strict=True)
        networks.append(network.to(memory_format=torch.channels_last))
    trained, evaluated = networks[0].train(), networks[1].eval()
    images, target = (
        torch.from_numpy(array.transpose(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
        for array in _batch(batch, size)
    )
    optimizer = torch.optim.Adam(trained.parameters(), lr=1e-3, fused=True)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.l1_loss(trained(images), target).backward()
        optimizer.step()

    def forward() -> None:
        with torch.inference_mode():
            evaluated(images)

    return {"train step": train, "forward": forward}


def _in_child(function: Callable[[Any], float], argument: Any) -> float:
    """Run in a fresh process, whose memory and caches are its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, (argument,))


def _memory(make_steps: Callable[[int, int], dict[str, Step]]) -> float:
    """Peak resident memory of three training steps, above the imported and built networks."""
    _share_machine()
    make_steps(1, 32)["forward"]()
    train = make_steps(*_SIZES[-1])["train step"]
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    for _ in range(3):
        train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return round((peak - before) / 2**20)


def _start(cache: str) -> float:
    """Seconds from a built state to the end of the first step."""
    import jax

    _share_machine()
    jax.config.update("jax_compilation_cache_dir", cache)
    train = _our_steps(*_SIZES[-1])["train step"]
    began = time.perf_counter()
    train()
    return round(time.perf_counter() - began, 1)
