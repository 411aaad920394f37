"""Test-time augmentation: the mean of what a network says of an image, flipped and turned.

Over all eight symmetries of the square a prediction turns with its image: that of a turned image is
the turned prediction.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

Tta = Literal[1, 4, 8]
TTA: tuple[Tta, ...] = (1, 4, 8)


def augmented(
    outputs_of: Callable[[np.ndarray], np.ndarray], images: np.ndarray, tta: int
) -> np.ndarray:
    """Mean outputs `[B, H, W, K]` of images `[B, H, W, C]`, float32, each turned back.

    `tta` 1 takes the images as they are, 4 their flips (which keep the shape of the image, so that
    nothing is compiled anew), 8 the flips and their transposes: as many times the time, and no more
    memory.
    """
    if tta == 1:
        return outputs_of(images)
    total: np.ndarray | None = None
    for transposed in (False, True)[: tta // 4]:
        for rows in (1, -1):
            for columns in (1, -1):
                # Flipped, then transposed; the outputs in the opposite order.
                turned = images[:, ::rows, ::columns]
                turned = turned.swapaxes(1, 2) if transposed else turned
                outputs = np.asarray(outputs_of(np.ascontiguousarray(turned)), np.float32)
                outputs = outputs.swapaxes(1, 2) if transposed else outputs
                back = outputs[:, ::rows, ::columns]
                total = back.copy() if total is None else np.add(total, back, out=total)
    assert total is not None
    total /= tta
    return total
