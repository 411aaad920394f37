"""What the compiler makes of a training step for a device that is not there.

Kernels, bytes, memory and sums over devices, each of one device, read from the optimised program.
Times, numerics and the choice of cuDNN's algorithms need the device; compiling needs its plugin and
no more: an environment with isl-jax[cuda12], or with jax[tpu], of the installed jax's version.
"""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from isl_jax.launch.benchmarks._hlo import Program

# XLA's description of an H100 SXM, from NVIDIA's data sheet and CUDA's tables.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 registers_per_core_limit: 65536
  registers_per_block_limit: 65536 cuda_compute_capability { major: 9 }
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
# A kernel takes no less than its launch.
_LAUNCH_SECONDS = 2e-6
_TIMEOUT_SECONDS = 3600


@dataclasses.dataclass(frozen=True)
class Target:
    """A device: its plugin, its topology for a number of devices, what bounds it."""

    plugin: str
    topology: str
    description: str | None
    bytes_per_second: float
    flops_per_second: dict[str, float]
    environment: dict[str, str]


TARGETS = {
    "h100": Target(
        plugin="jax_plugins.xla_cuda12",
        topology="1x1x{devices}",
        description=_H100,
        bytes_per_second=3.35e12,
        flops_per_second={"bfloat16": 989e12, "float32": 67e12},
        environment={"CUDA_VISIBLE_DEVICES": "-1"},
    ),
    "v5e": Target(
        plugin="libtpu",
        topology="v5e:2x2",
        description=None,
        bytes_per_second=0.82e12,
        flops_per_second={"bfloat16": 197e12, "float32": 33e12},
        environment={
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_ID": "0",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_ACCELERATOR_TYPE": "v5litepod-4",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        },
    ),
}


@dataclasses.dataclass(frozen=True)
class Request:
    """A training step of the pretext task: `batch` crops of `size`² over `devices` devices."""

    target: str = "h100"
    devices: int = 1
    batch: int = 10
    size: int = 512
    dtype: str = "bfloat16"
    encoder: str = "densenet121"


def lacking(target: str) -> str | None:
    """What is missing to compile for `target`, in words; None if nothing is."""
    plugin = TARGETS[target].plugin
    parent = plugin.partition(".")[0]
    if importlib.util.find_spec(parent) and importlib.util.find_spec(plugin):
        return None
    extra = "isl-jax[cuda12]" if target == "h100" else "jax[tpu]"
    return f"compiling for {target} needs {plugin}: pip install '{extra}'"


def main(request: Request) -> dict[str, Any]:
    """Compile, print the table, return the figures; ValueError without the target's plugin."""
    missing = lacking(request.target)
    if missing:
        raise ValueError(missing)
    with tempfile.TemporaryDirectory() as folder:
        told, text, memory = _compile(request, Path(folder))
    program, target = Program(text), TARGETS[request.target]
    figures = dataclasses.asdict(request) | told | program.facts() | {"memory_gigabytes": memory}
    figures |= bounds(program, target, request.dtype)
    share = request.batch / request.devices
    figures |= {
        "megabytes_a_crop": figures["gigabytes"] * 1e3 / share,
        "crops_per_second_at_most": 1e3 * request.batch / figures["launch_bound_ms"],
    }
    print(_table(figures))
    return figures


def bounds(program: Program, target: Target, dtype: str) -> dict[str, float]:
    """Milliseconds that a program takes at least: by memory, with launches, by arithmetic."""
    seconds = [size / target.bytes_per_second for _, size in program.kernels()]
    return {
        "memory_bound_ms": 1e3 * sum(seconds),
        "launch_bound_ms": 1e3 * sum(max(one, _LAUNCH_SECONDS) for one in seconds),
        "arithmetic_bound_ms": 1e3 * program.flops() / target.flops_per_second[dtype],
    }


def _compile(request: Request, folder: Path) -> tuple[dict[str, Any], str, float | None]:
    """What the child told, the optimised program, and GB of memory where XLA reports it.

    XLA writes the program long before it has made code of it; the child is ended then.
    """
    target = TARGETS[request.target]
    values = dataclasses.asdict(request) | {
        "target": target.description,
        "topology": target.topology.format(devices=request.devices),
    }
    flags = f"--xla_dump_to={folder} --xla_dump_hlo_as_text --xla_gpu_autotune_level=0"
    flags += " --xla_dump_hlo_module_re=.*train_step.*"
    environment = os.environ | target.environment | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    command = [sys.executable, "-m", "isl_jax.launch.benchmarks._lowered", json.dumps(values)]
    with (folder / "told").open("w") as told, (folder / "errors").open("w") as errors:
        child = subprocess.Popen(command, env=environment, stdout=told, stderr=errors)
    try:
        program, report = _wait_for(child, folder)
    finally:
        child.kill()
        child.wait()
    found = re.search(r"Total bytes: (\d+)", report)
    memory = int(found[1]) / 1e9 if found else None
    return json.loads((folder / "told").read_text().splitlines()[0]), program, memory


def _wait_for(child: subprocess.Popen, folder: Path) -> tuple[str, str]:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.5)
        ended = child.poll() is not None
        programs = list(folder.glob("*after_optimizations.txt"))
        reports = list(folder.glob("*memory-usage-report.txt"))
        if programs and (reports or ended):
            time.sleep(1)  # both are being written
            return programs[0].read_text(), reports[0].read_text() if reports else ""
        if ended:
            last = (folder / "errors").read_text().strip().splitlines() or ["no reason given"]
            raise RuntimeError(f"the step does not compile: {last[-1]}")
    raise TimeoutError(f"no program after {_TIMEOUT_SECONDS} s")


def _table(figures: dict[str, Any]) -> str:
    shown = {
        "kernels": f"{figures['kernels']}",
        "GB read and written": f"{figures['gigabytes']:.1f}",
        "MB a crop": f"{figures['megabytes_a_crop']:.0f}",
        "memory, GB": f"{figures['memory_gigabytes'] or float('nan'):.2f}",
        "GFLOP": f"{figures['gigaflop']:.0f}",
        "sums over devices": f"{figures['all_reduces']} {figures['all_reduce_dtypes']}",
        "largest window": f"{figures['largest_window']}",
        "donated arrays": f"{figures['donated']} of {figures['leaves']}",
        "ms, bound by arithmetic": f"{figures['arithmetic_bound_ms']:.1f}",
        "ms, bound by memory": f"{figures['memory_bound_ms']:.1f}",
        f"ms, {_LAUNCH_SECONDS * 1e6:g} µs a kernel at least": f"{figures['launch_bound_ms']:.1f}",
        "crops/s at most": f"{figures['crops_per_second_at_most']:.0f}",
    }
    head = "{target}, {devices} devices, {batch}×{size}², {dtype}, {encoder}".format(**figures)
    kinds = [f"  {count:>5}  {kind}" for kind, count in list(figures["kinds"].items())[:12]]
    lines = [f"{name:<28}{value:>16}" for name, value in shown.items()]
    return "\n".join([head, *lines, "kernels by kind", *kinds])
