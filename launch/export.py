"""Write a trained model in another program's format, checked against the model itself.

    isl-export --model=W1 --format=onnx --out=model.onnx
    isl-export --model=W1 --format=smp --out=weights.safetensors
    isl-export --model=W1 --format=stablehlo --out=model.stablehlo
    isl-export --model=W1 --format=bioimageio --out=model.zip --name='HeLa cells' --author='A. Name'
    isl-export --model=W0 --format=pretrained --out=FOLDER --dtype=bfloat16

smp: weights for segmentation_models_pytorch. onnx: any batch and image size; outputs are the
network's, of standardised images. stablehlo: jax on CPU, CUDA and TPU without this package;
bioimageio: a package for deepImageJ, ilastik and others, raw images in, maps out.
pretrained: a folder with the weights of a pretext run, for --config.init.checkpoint of others, with
its card and a check; --data_licence, once for each set, says under what terms the images stand that
it was learnt from (default: the SOURCE.txt that isl-fetch left beside them).
--licence='CC BY 4.0' says under what terms the weights may be used (bioimageio: an SPDX identifier,
CC-BY-4.0); it is stored in what is exported, beside the model's description.
onnx and bioimageio need `pip install 'isl-jax[export]'`. See docs/export.md.
"""

import dataclasses
from pathlib import Path

from absl import flags

from isl_jax.data.description import DESCRIPTION
from isl_jax.export import FORMATS, PRETRAINED, export_model
from isl_jax.files import read_json
from isl_jax.inference.model import load_model
from isl_jax.ingest.public import NOTICE
from isl_jax.launch.command import command
from isl_jax.launch.configuration import configure_jax
from isl_jax.study.workdir import CONFIG

_MODEL = flags.DEFINE_string("model", None, "Model folder, or the workdir of a finished run.")
_FORMAT = flags.DEFINE_enum("format", None, FORMATS, "What to write.")
_OUT = flags.DEFINE_string(
    "out", None, "File to write, replaced if it exists; pretrained: a new folder."
)
_NAME = flags.DEFINE_string("name", "", "bioimageio: the model's name (default: the file's).")
_AUTHOR = flags.DEFINE_string("author", "", "bioimageio: who trained the model.")
_LICENCE = flags.DEFINE_string(
    "licence", None, "Licence of the weights; default: what the model folder says."
)
_DTYPE = flags.DEFINE_enum(
    "dtype", None, ["float32", "bfloat16"], "pretrained: of the kernels; default float32, exact."
)
_DATA_LICENCE = flags.DEFINE_multi_string(
    "data_licence", None, "pretrained: terms of the images that it was learnt from."
)


def main() -> None:
    """Load, export, check, say how large the file is."""
    if not (_MODEL.value and _FORMAT.value and _OUT.value):
        raise ValueError("--model=FOLDER, --format and --out=FILE are needed; see --help")
    if _LICENCE.value and _FORMAT.value == "stablehlo":
        raise ValueError("--licence: a StableHLO file has no place for it; give it beside the file")
    if _FORMAT.value != PRETRAINED and (_DTYPE.value or _DATA_LICENCE.value):
        raise ValueError("--dtype and --data_licence are for --format=pretrained")
    configure_jax()
    model = load_model(_MODEL.value)
    if _LICENCE.value:
        model.info = dataclasses.replace(model.info, licence=_LICENCE.value)
    out = export_model(
        model,
        _FORMAT.value,
        Path(_OUT.value),
        name=_NAME.value,
        author=_AUTHOR.value,
        dtype=_DTYPE.value or "float32",
        data_licences=_DATA_LICENCE.value or _source_notices(Path(_MODEL.value)),
    )
    size = sum(file.stat().st_size for file in (out.iterdir() if out.is_dir() else [out]))
    print(f"{out}: {_FORMAT.value}, {size / 1e6:.1f} MB, outputs checked")


def _source_notices(workdir: Path) -> list[str]:
    """What isl-fetch wrote about the raw images of a run, if both are where they were."""
    remedy = "give --data_licence"
    try:
        config = read_json(workdir / CONFIG, remedy=remedy, keys={"data": {"root": str}})
        description = Path(config["data"]["root"]) / DESCRIPTION
        source = read_json(description, remedy=remedy, keys={"source": str})["source"]
        return [" ".join((Path(source) / NOTICE).read_text(encoding="utf-8").split())]
    except (OSError, ValueError):
        return []


run = command(main)

if __name__ == "__main__":
    run()
