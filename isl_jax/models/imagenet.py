"""DenseNets trained on ImageNet: which files there are, and getting one of them."""

from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.models.port import variables_from_torch
from isl_jax.models.weights import download, first_line, from_hub, home, read_state_dict

# torchvision's files; the digits are the beginning of the SHA-256, all that it publishes.
_TORCHVISION = {
    "densenet121": "densenet121-a639ec97.pth",
    "densenet161": "densenet161-8d451a50.pth",
    "densenet169": "densenet169-b2777c0a.pth",
    "densenet201": "densenet201-c1103571.pth",
}
_MEGABYTES = {"densenet121": 32, "densenet161": 116, "densenet169": 57, "densenet201": 81}
_TORCHVISION_URL = "https://download.pytorch.org/models"
# Where torchvision keeps its own downloads: a file it has fetched is found, and the reverse.
DEFAULT_CACHE = Path("~/.cache/torch/hub/checkpoints")


def imagenet_variables(
    source: str | None = None, *, in_channels: int = 3, encoder: str = "densenet121", **options: Any
) -> dict[str, Any]:
    """Flax variables of the encoder alone, first convolution adapted to `in_channels`.

    `source` and `options` as in `load_imagenet`.
    """
    state_dict = load_imagenet(source, encoder=encoder, **options)
    return variables_from_torch(state_dict, encoder=encoder, in_channels=in_channels)


def load_imagenet(
    source: str | None = None,
    *,
    encoder: str = "densenet121",
    cache_dir: str | Path = DEFAULT_CACHE,
    offline: bool = False,
    hub_endpoint: str | None = None,
    torchvision_url: str = _TORCHVISION_URL,
) -> dict[str, np.ndarray]:
    """State dict of a DenseNet trained on ImageNet, in PyTorch's names and layout.

    `source`: None takes the Hugging Face hub (`timm/densenet121.tv_in1k`) and falls back on
    torchvision's file; `hub` and `torchvision` insist on one; anything else is a path to a
    `.safetensors` or `.pth` file. Both downloads are verified, resumed and cached; `offline` uses
    what the caches hold. Raises ValueError (damaged, unknown) or OSError (not to be had, with the
    address, the size and where to put the file).
    """
    if source not in (None, "hub", "torchvision"):
        return read_state_dict(str(source))
    if encoder not in _TORCHVISION:
        known = ", ".join(_TORCHVISION)
        raise ValueError(f"no ImageNet weights are known for encoder {encoder!r}, only for {known}")
    name = _TORCHVISION[encoder]
    cached = home(Path(cache_dir)) / name
    reasons = []
    if source != "hub" and cached.exists():
        return read_state_dict(cached)
    if source != "torchvision":
        try:
            return read_state_dict(_hub_file(encoder, offline, hub_endpoint))
        except OSError as error:
            reasons.append(f"Hugging Face hub: {first_line(error)}")
    if source != "hub" and not offline:
        try:
            return read_state_dict(download(f"{torchvision_url}/{name}", cached))
        except OSError as error:
            reasons.append(f"torchvision: {first_line(error)}")
    raise OSError(
        f"ImageNet weights of {encoder} cannot be had{' offline' if offline else ''}"
        f" ({'; '.join(reasons) or f'{cached} does not exist'}). Download "
        f"{torchvision_url}/{name} ({_MEGABYTES[encoder]} MB) elsewhere and put it at {cached}, or "
        "name any copy by config.init.weights"
    )


def _hub_file(encoder: str, offline: bool, endpoint: str | None) -> Path:
    return from_hub(
        f"timm/{encoder}.tv_in1k", "model.safetensors", offline=offline, endpoint=endpoint
    )
