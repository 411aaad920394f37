"""PyTorch's training step on the accelerator, as the `gpu` suite measures it beside ours."""

import time
from collections.abc import Callable

import numpy as np


def crops(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images `[B, S, S, 3]` and targets `[B, S, S, 1]`, float32, the same for every framework."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, size, size, 3), np.float32)
    return images, rng.random((batch, size, size, 1), np.float32)


def images_a_second(run: Callable[[int], None], batch: int, seconds: float) -> float:
    """Median pace of `run(steps)`, which waits for the device, over rounds of `seconds` in all."""
    run(2)
    began = time.perf_counter()
    run(2)
    steps = max(1, round(seconds / 5 / ((time.perf_counter() - began) / 2)))
    paces = []
    for _ in range(5):
        began = time.perf_counter()
        run(steps)
        paces.append(batch * steps / (time.perf_counter() - began))
    return float(np.median(paces))


def measure(
    encoder: str, batch: int, size: int, dtype: str, best: bool, seconds: float
) -> dict[str, float]:
    """Pace of eager float32 as the reference has it, or of PyTorch at its best.

    At its best: channels_last, autocast where `dtype` is bfloat16, compiled, fused Adam. float32
    means float32: TF32 is off, as it is in ours.
    """
    import torch

    from isl_jax.launch.benchmarks._torch_unet import TorchUNet
    from isl_jax.models.architecture import encoder_config

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = best
    layout = torch.channels_last if best else torch.contiguous_format
    network = TorchUNet(1, encoder_config(encoder)).to(device, memory_format=layout).train()
    images, target = (
        torch.from_numpy(array.transpose(0, 3, 1, 2).copy()).to(device, memory_format=layout)
        for array in crops(batch, size)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=best)
    forward = torch.compile(network) if best else network

    def run(times: int) -> None:
        for _ in range(times):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
                outputs = forward(images)
            torch.nn.functional.l1_loss(outputs.float(), target).backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    began = time.perf_counter()
    run(1)
    first = time.perf_counter() - began
    pace = images_a_second(run, batch, seconds)
    return {"images/s": pace, "ms": 1e3 * batch / pace, "first step, s": first}
