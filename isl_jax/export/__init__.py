"""A trained model in the formats of other programs; each export is checked against the model."""

from collections.abc import Callable, Sequence
from pathlib import Path

from isl_jax.files import clear_drafts, write_bytes, written_whole
from isl_jax.inference.model import Model

PRETRAINED = "pretrained"
FORMATS = ("smp", "onnx", "stablehlo", "bioimageio", PRETRAINED)


def export_model(
    model: Model,
    format_name: str,
    out: Path,
    *,
    name: str = "",
    author: str = "",
    dtype: str = "float32",
    data_licences: Sequence[str] = (),
) -> Path:
    """Write `model` to the file `out`, whole or not at all; returns `out`.

    `smp`: PyTorch weights for segmentation_models_pytorch; `onnx`; `stablehlo`: jax without this
    package; `bioimageio`: a zipped package, with a `name` and its `author`; `pretrained`: a folder
    that others begin from (`export.pretrained`), with weights of `dtype` and `data_licences`.
    Raises ValueError for an unknown format, a missing optional package or a file that cannot be
    written, RuntimeError if the export's outputs are not the model's within 1e-4.
    """
    out = Path(out)
    is_folder = format_name == PRETRAINED
    fault = _fault_of(out, is_folder=is_folder)
    if fault:
        kind = "a new folder" if is_folder else "the file to write"
        raise ValueError(f"{out}: {fault}; name {kind} with --out")
    clear_drafts(out.parent)
    if is_folder:
        from isl_jax.export.pretrained import DTYPES, write_pretrained

        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
        with written_whole(out) as draft:
            draft.mkdir()
            write_pretrained(
                model, draft, name=name or out.name, dtype=dtype, data_licences=data_licences
            )
        return out
    content = _writer(format_name, name or out.stem, author or "unknown")(model)
    write_bytes(out, content)
    return out


def _fault_of(out: Path, *, is_folder: bool) -> str | None:
    """Why a file cannot be written there, known before the work; None if it can."""
    if out.is_symlink():
        return "is a link, which is not followed"
    if out.is_dir() and not is_folder:
        return "is a folder"
    if is_folder and out.exists():
        return "exists already"
    if out.exists() and not out.is_file():
        return "is no regular file"
    if not out.parent.is_dir():
        return "lies in no existing folder"
    try:
        with written_whole(out.parent / ".writable") as draft:
            draft.write_bytes(b"")
        (out.parent / ".writable").unlink(missing_ok=True)
    except OSError as error:
        return f"cannot be written ({error.strerror or error})"
    return None


def _writer(format_name: str, name: str, author: str) -> Callable[[Model], bytes]:
    # Each format's module is imported for that format alone: what they need differs.
    if format_name == "smp":
        from isl_jax.export.smp import smp_bytes

        return smp_bytes
    if format_name == "onnx":
        from isl_jax.export.onnx_model import onnx_bytes

        return onnx_bytes
    if format_name == "stablehlo":
        from isl_jax.export.stablehlo import stablehlo_bytes

        return stablehlo_bytes
    if format_name == "bioimageio":
        from isl_jax.export.bioimage import bioimageio_bytes

        return lambda model: bioimageio_bytes(model, name=name, author=author)
    raise ValueError(f"format {format_name!r}: choose one of {', '.join(FORMATS)}")
