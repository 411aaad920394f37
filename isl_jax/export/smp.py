"""segmentation_models_pytorch: a state dict that its U-Net loads with `strict=True`."""

import json

import numpy as np
from safetensors.numpy import save

from isl_jax.inference.model import Model
from isl_jax.models.port import torch_from_variables, variables_from_torch


def smp_bytes(model: Model) -> bytes:
    """Safetensors file of the weights in PyTorch's names and layout; `model.json` as metadata.

    Of a plain U-Net these are the names of `Unet(encoder, in_channels=C, classes=K)`; of a network
    with a two-convolution head they are the paper's code's (`u_net.…`, `block_1`, `block_2`).
    Raises ValueError if the weights are not those of the network that the model describes.
    """
    state_dict = torch_from_variables(model.variables)
    variables_from_torch(state_dict, encoder=model.info.network.encoder)  # strict by name and shape
    arrays = {name: np.ascontiguousarray(array) for name, array in state_dict.items()}
    return save(arrays, metadata={"isl_jax": json.dumps(model.info.to_json())})
