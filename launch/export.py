"""Write a trained model in another program's format, checked against the model itself.

    isl-export --model=W1 --format=onnx --out=model.onnx
    isl-export --model=W1 --format=smp --out=weights.safetensors
    isl-export --model=W1 --format=stablehlo --out=model.stablehlo
    isl-export --model=W1 --format=bioimageio --out=model.zip --name='HeLa cells' --author='A. Name'

smp: weights for segmentation_models_pytorch. onnx: any batch and image size; outputs are the
network's, of standardised images. stablehlo: jax on CPU, CUDA and TPU without this package;
bioimageio: a package for deepImageJ, ilastik and others, raw images in, maps out.
--licence='CC BY 4.0' says under what terms the weights may be used (bioimageio: an SPDX identifier,
CC-BY-4.0); it is stored in what is exported, beside the model's description.
onnx and bioimageio need `pip install 'isl-jax[export]'`. See docs/export.md.
"""

import dataclasses
from pathlib import Path

from absl import flags

from isl_jax.export import FORMATS, export_model
from isl_jax.inference.model import load_model
from isl_jax.launch.command import command
from isl_jax.launch.configuration import configure_jax

_MODEL = flags.DEFINE_string("model", None, "Model folder, or the workdir of a finished run.")
_FORMAT = flags.DEFINE_enum("format", None, FORMATS, "What to write.")
_OUT = flags.DEFINE_string("out", None, "File to write; it is replaced if it exists.")
_NAME = flags.DEFINE_string("name", "", "bioimageio: the model's name (default: the file's).")
_AUTHOR = flags.DEFINE_string("author", "", "bioimageio: who trained the model.")
_LICENCE = flags.DEFINE_string(
    "licence", None, "Licence of the weights; default: what the model folder says."
)


def main() -> None:
    """Load, export, check, say how large the file is."""
    if not (_MODEL.value and _FORMAT.value and _OUT.value):
        raise ValueError("--model=FOLDER, --format and --out=FILE are needed; see --help")
    if _LICENCE.value and _FORMAT.value == "stablehlo":
        raise ValueError("--licence: a StableHLO file has no place for it; give it beside the file")
    configure_jax()
    model = load_model(_MODEL.value)
    if _LICENCE.value:
        model.info = dataclasses.replace(model.info, licence=_LICENCE.value)
    out = export_model(
        model, _FORMAT.value, Path(_OUT.value), name=_NAME.value, author=_AUTHOR.value
    )
    print(f"{out}: {_FORMAT.value}, {out.stat().st_size / 1e6:.1f} MB, outputs checked")


run = command(main)

if __name__ == "__main__":
    run()
