"""Convolutions of the network: NHWC images, HWIO kernels, PyTorch's symmetric padding."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec


def _precision(dtype: Any) -> jax.lax.Precision | None:
    """How exact products of `dtype` are: float32 ones all of it, on every device.

    GPUs round the factors of float32 products to 10 bits (TF32) and TPUs to 7 (bfloat16) unless
    told not to: a model's maps, and its labels, would differ from one kind of device to the other.
    """
    return None if dtype == jnp.bfloat16 else jax.lax.Precision.HIGHEST


def _summed_in_float32(
    function: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, kernel: jax.Array
) -> jax.Array:
    """`function(x, kernel)`, whose gradient towards a wider `kernel` is summed in its dtype.

    Of a batch that is split over devices each one makes its share of that gradient in the dtype of
    `x`. Left alone, XLA adds up these shares before they are widened: in bfloat16.
    """
    mesh = jax.typeof(x).sharding.mesh
    if x.dtype == kernel.dtype or mesh.size <= 1 or x.shape[0] % mesh.size:
        return function(x, kernel)
    split = PartitionSpec(mesh.axis_names)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(split, PartitionSpec()), out_specs=split)
    def share(x: jax.Array, kernel: jax.Array) -> jax.Array:
        # A copy for each device, made before it is narrowed: the gradient of copying is the sum.
        return function(x, jax.lax.pcast(kernel, mesh.axis_names, to="varying"))

    return share(x, kernel)


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
    """Convolve `x` `[B, H, W, I]` with `kernel` `[k, k, I, O]`, zero-padded by `k // 2`.

    In the dtype of `x`; float32 is float32 on every device.
    """
    return _summed_in_float32(functools.partial(_convolve, stride=stride), x, kernel)


def _convolve(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    if kernel.shape[:2] == (1, 1) and stride == 1:
        # A product of matrices: XLA's gradient towards a 1×1 kernel convolves with a kernel as
        # large as the image, which took 3 to 20 times as long on CPU.
        return jnp.matmul(x, kernel[0, 0].astype(x.dtype), precision=_precision(x.dtype))
    pads = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return _plain(x, kernel.astype(x.dtype), pads, stride=stride)


def _plain(x: jax.Array, kernel: jax.Array, pads: Any, *, stride: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=_precision(x.dtype),
    )


def convolve_upsampled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3×3 convolution of `x` `[B, H, W, I]` up-sampled ×2 (nearest): `[B, 2H, 2W, O]`.

    The up-sampled image is never made: of the three taps of an output pixel along an axis, two fall
    on one input pixel, so each of the four output parities is a 2×2 convolution of the input with
    summed taps, which is 4/9 of the multiplications.
    """
    return _summed_in_float32(_convolve_upsampled, x, kernel)


def _convolve_upsampled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    columns = [_phase(rows, axis=1) for rows in _phase(kernel, axis=0)]
    kernels = [columns[p][q].astype(x.dtype) for p in (0, 1) for q in (0, 1)]
    parities = jax.lax.platform_dependent(
        x, kernels, cpu=_four_convolutions, default=_one_convolution
    )
    batch, height, width, _ = x.shape
    rows = [jnp.stack(parities[2 * p : 2 * p + 2], axis=3) for p in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, -1)


def _four_convolutions(x: jax.Array, kernels: list[jax.Array]) -> list[jax.Array]:
    """Each parity `[B, H, W, O]` by itself.

    XLA's gradient of `_one_convolution` towards its kernel takes five times as long on CPU.
    """
    return [
        _plain(x, kernel, [(1 - p, p), (1 - q, q)])
        for kernel, (p, q) in zip(kernels, np.ndindex(2, 2), strict=True)
    ]


def _one_convolution(x: jax.Array, kernels: list[jax.Array]) -> list[jax.Array]:
    """All parities as features of one convolution, which reads the image once."""
    _, height, width, _ = x.shape
    # Behind a barrier: XLA would make the padding part of the convolution, whose gradient towards
    # the kernel then has a window as large as the image.
    padded = jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
    joined = _plain(padded, jnp.concatenate(kernels, axis=-1), [(0, 0), (0, 0)])
    return [
        parity[:, p : p + height, q : q + width]
        for parity, (p, q) in zip(jnp.split(joined, 4, axis=-1), np.ndindex(2, 2), strict=True)
    ]


def _phase(kernel: jax.Array, *, axis: int) -> tuple[jax.Array, jax.Array]:
    """Taps of even and of odd output pixels along `axis`, of length 3 before and 2 after."""
    before, here, after = jnp.split(kernel, 3, axis=axis)
    # An even pixel reads its neighbour before once and its own twice; an odd one mirrors that.
    even = jnp.concatenate([before, here + after], axis=axis)
    odd = jnp.concatenate([before + here, after], axis=axis)
    return even, odd


def _kernel(size: int, inputs: int, outputs: int) -> tuple[Any, tuple[int, int, int, int]]:
    """Arguments of `Module.param` for a square HWIO kernel.

    Zeros: real values are drawn on the host by `variables.init_variables` or ported.
    """
    return nn.initializers.zeros, (size, size, inputs, outputs)


class Conv(nn.Module):
    """`Conv2d` with symmetric zero padding `k // 2`: `[B, H, W, I]` to `[B, H/s, W/s, O]`."""

    features: int
    size: int
    stride: int = 1
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve `x` in its own dtype."""
        kernel = self.param("kernel", *_kernel(self.size, x.shape[-1], self.features))
        y = convolve(x, kernel, stride=self.stride)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.astype(y.dtype)
        return y


class UpsampledConv(nn.Module):
    """Bias-free 3×3 convolution of `x` up-sampled ×2 with a skip appended to its channels.

    `x` `[B, H, W, C]`, skip `[B, 2H, 2W, S]` or None, to `[B, 2H, 2W, features]`.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array | None) -> jax.Array:
        """Convolve both apart and add: neither the up-sampled nor the joined image is made."""
        channels = x.shape[-1]
        inputs = channels + (0 if skip is None else skip.shape[-1])
        kernel = self.param("kernel", *_kernel(3, inputs, self.features))
        y = convolve_upsampled(x, kernel[:, :, :channels])
        return y if skip is None else y + convolve(skip, kernel[:, :, channels:])
