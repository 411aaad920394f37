"""Raw files to a prepared data set: everything checked first, one field in memory at a time."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from isl_jax.data import readers
from isl_jax.data.layouts import Layout, RawField, Role
from isl_jax.data.normalisation import StainScale, plane_statistics
from isl_jax.data.projections import PROJECTIONS, bin_average, bin_labels
from isl_jax.data.store import DESCRIPTION, FIELDS_DIR, INPUTS, LABELS, SCHEMA, STAIN

PERCENTILES = (0.1, 1.0, 50.0, 99.0, 99.9)
_RECORD = "field.json"


@dataclass(frozen=True)
class CheckedField:
    """A raw field whose files have been found to fit together, known from their headers."""

    raw: RawField
    height: int
    width: int
    channels: tuple[str, ...]
    dtype: np.dtype
    stain_dtype: np.dtype | None
    label_channel: str | None
    pixel_size: float | None


def check_field(field: RawField, layout: Layout) -> CheckedField:
    """Check one field by the headers of its files (floats: also their pixels, for NaN).

    Raises ValueError or OSError in one line that names the file and the remedy.
    """
    wanted = [*layout.inputs, *([layout.stain] if layout.stain else [])]
    for role in wanted:
        if role.channel not in field.files:
            raise ValueError(
                f"field {field.name!r} has no {role.channel!r} file (it has "
                f"{', '.join(sorted(field.files))}); add the file, or leave the field out with "
                f"--exclude='^{field.name}$'"
            )
    labels = next((name for name in layout.labels if name in field.files), None)
    shapes: dict[Path, tuple[int, int]] = {}
    infos = {}
    for channel in _distinct([*(role.channel for role in wanted), labels]):
        infos[channel] = [readers.inspect(path) for path in field.files[channel]]
        for path, info in zip(field.files[channel], infos[channel], strict=True):
            shapes[path] = (info.height, info.width)
    _check_sizes(shapes)
    channels = [name for role in layout.inputs for name in _plane_names(field, role, infos)]
    if layout.stain:
        _check_stain(field, layout.stain, infos)
    if labels:
        _check_label_type(field.files[labels][0], infos[labels])
    for role in wanted:
        if any(info.dtype.kind == "f" for info in infos[role.channel]):
            _read_role(field, role)
    height, width = next(iter(shapes.values()))
    first = infos[layout.inputs[0].channel][0]
    return CheckedField(
        raw=field,
        height=height,
        width=width,
        channels=tuple(channels),
        dtype=np.result_type(*(i.dtype for role in layout.inputs for i in infos[role.channel])),
        stain_dtype=infos[layout.stain.channel][0].dtype if layout.stain else None,
        label_channel=labels,
        pixel_size=layout.pixel_size or first.pixel_size,
    )


def _distinct(names: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(name for name in names if name is not None))


def _check_sizes(shapes: dict[Path, tuple[int, int]]) -> None:
    (first, size), *others = shapes.items()
    for path, other in others:
        if other != size:
            raise ValueError(
                f"{path}: is {other[0]}×{other[1]} pixels, but {first.name} of the same field is "
                f"{size[0]}×{size[1]}; all channels of a field must have one size"
            )


def _plane_names(field: RawField, role: Role, infos: dict) -> list[str]:
    """Names of the network channels that one role gives."""
    count = sum(info.planes for info in infos[role.channel])
    try:
        chosen = role.select(count)
    except ValueError as error:
        raise ValueError(f"{field.files[role.channel][0]}: {error}") from None
    if role.projection != "none":
        return [f"{role.channel}:{role.projection}"]
    return [role.channel] if count == 1 else [f"{role.channel}[{plane}]" for plane in chosen]


def _check_stain(field: RawField, role: Role, infos: dict) -> None:
    if len(_plane_names(field, role, infos)) > 1:
        raise ValueError(
            f"{field.files[role.channel][0]}: the stain has several planes; say how to reduce "
            f"them, for instance --stain={role.channel}:max"
        )


def _check_label_type(path: Path, infos: Sequence[readers.ImageInfo]) -> None:
    if infos[0].dtype.kind not in "iub":
        raise ValueError(f"{path}: labels are {infos[0].dtype}, expected integers; save as uint16")
    if sum(info.planes for info in infos) > 1:
        raise ValueError(f"{path}: a label image must be one plane, this has several")


def check_fields(
    fields: Iterable[RawField], layout: Layout, *, progress: Callable = lambda items: items
) -> tuple[CheckedField, ...]:
    """Check every field by `check_field`, and that all give the same channels and stain dtype."""
    checked = tuple(check_field(field, layout) for field in progress(tuple(fields)))
    first = checked[0]
    for item in checked[1:]:
        if len(item.channels) != len(first.channels):
            raise ValueError(
                f"field {item.raw.name!r} gives {len(item.channels)} input channels "
                f"({', '.join(item.channels)}), but field {first.raw.name!r} {len(first.channels)}"
                "; choose planes with --inputs=channel[1,2] or exclude fields"
            )
        if item.stain_dtype != first.stain_dtype:
            raise ValueError(
                f"the stain of field {item.raw.name!r} is {item.stain_dtype}, of field "
                f"{first.raw.name!r} {first.stain_dtype}; convert them to one type"
            )
    return checked


def load_field(
    checked: CheckedField, layout: Layout, *, binning: int = 1
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Read one field: inputs [H, W, C], stain [H, W] or None (raw dtypes), labels int32 or None.

    `binning` averages blocks of images and takes the most frequent label of each block. Raises
    ValueError for NaN, infinite or constant planes and for negative labels.
    """
    planes = [plane for role in layout.inputs for plane in _read_role(checked.raw, role)]
    stain = _read_role(checked.raw, layout.stain)[0] if layout.stain else None
    labels = None
    if checked.label_channel:
        path = checked.raw.files[checked.label_channel][0]
        labels = readers.read(path)[0]
        if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
            raise ValueError(
                f"{path}: labels go from {labels.min()} to {labels.max()}; expected ≥ 0"
            )
        labels = labels.astype(np.int32)
    if binning > 1:
        planes = [bin_average(plane, binning) for plane in planes]
        stain = None if stain is None else bin_average(stain, binning)
        labels = None if labels is None else bin_labels(labels, binning)
    return np.stack(planes, axis=-1), stain, labels


def _read_role(field: RawField, role: Role) -> np.ndarray:
    """Planes of a role, projected: [P, H, W] in the raw dtype, finite and not constant."""
    paths = field.files[role.channel]
    counts = [readers.inspect(path).planes for path in paths]
    address = [(path, plane) for path, n in zip(paths, counts, strict=True) for plane in range(n)]
    chosen = [address[k] for k in role.select(len(address))]
    stack = np.concatenate([readers.read(path, planes=[plane]) for path, plane in chosen])
    for (path, number), plane in zip(chosen, stack, strict=True):
        where = f"{path}, plane {number}" if len(address) > 1 else str(path)
        if plane.dtype.kind == "f" and not np.isfinite(plane).all():
            bad = int(plane.size - np.isfinite(plane).sum())
            raise ValueError(
                f"{where}: has {bad} pixels that are NaN or infinite; repair or exclude it"
            )
        if plane.min() == plane.max():
            raise ValueError(
                f"{where}: every pixel is {plane.flat[0]}, an empty plane; acquire it again or "
                f"leave the field out with --exclude='^{field.name}$'"
            )
    return stack if role.projection == "none" else PROJECTIONS[role.projection](stack)[None]


def write_field(folder: Path, checked: CheckedField, layout: Layout, binning: int) -> dict:
    """Convert one field into `folder`, complete or not at all; returns its dataset.json entry."""
    record = folder / _RECORD
    if record.is_file():  # converted before an interruption
        return json.loads(record.read_text())
    inputs, stain, labels = load_field(checked, layout, binning=binning)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, array in ((INPUTS, inputs), (STAIN, stain), (LABELS, labels)):
        if array is not None:
            np.save(partial / name, np.ascontiguousarray(array))
    statistics = [plane_statistics(inputs[..., c]) for c in range(inputs.shape[-1])]
    entry = {
        "name": checked.raw.name,
        "group": checked.raw.group,
        "height": inputs.shape[0],
        "width": inputs.shape[1],
        "has_stain": stain is not None,
        "has_labels": labels is not None,
        "input_mean": [mean for mean, _ in statistics],
        "input_std": [std for _, std in statistics],
        "input_percentiles": np.percentile(inputs, PERCENTILES, axis=(0, 1)).T.tolist(),
        "stain_percentiles": None if stain is None else np.percentile(stain, PERCENTILES).tolist(),
        "num_labels": None
        if labels is None
        else int(np.count_nonzero(np.bincount(labels.ravel())[1:])),
        "input_dtype": str(inputs.dtype),
        "stain_dtype": None if stain is None else str(stain.dtype),
        "sources": {
            channel: [{"file": path.name, "bytes": path.stat().st_size} for path in paths]
            for channel, paths in checked.raw.files.items()
        },
    }
    (partial / _RECORD).write_text(json.dumps(entry))
    partial.rename(folder)
    return entry


def prepare(
    checked: Sequence[CheckedField],
    layout: Layout,
    split_of: dict[str, str],
    out: Path,
    *,
    binning: int = 1,
    stain_scale: str = "percentile",
    source: str = "",
    split_record: dict | None = None,
    workers: int = 1,
    progress: Callable[..., Iterable] = lambda items, **_: items,
) -> Path:
    """Write the prepared data set `out` from checked fields that `split_of` names a split for.

    Fields are converted in a folder beside `out`, which becomes `out` when all is done: after an
    interruption the same call goes on where it stopped, after an input error nothing is left.
    """
    out = Path(out)
    fields = [item for item in checked if item.raw.name in split_of]
    settings = repr((layout, binning, [item.raw for item in fields]))
    digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
    partial = out.with_name(f".{out.name}.{digest}.partial")
    (partial / FIELDS_DIR).mkdir(parents=True, exist_ok=True)
    tasks = [(partial / FIELDS_DIR / item.raw.name, item, layout, binning) for item in fields]
    try:
        entries = _convert(tasks, workers, progress)
        for entry in entries:
            entry["split"] = split_of[entry["name"]]
        scale = _stain_scale(partial, entries, fields, stain_scale)
    except (ValueError, OSError, LookupError):
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sizes = {item.pixel_size * binning for item in fields if item.pixel_size}
    record = {
        "schema": SCHEMA,
        "study": layout.study,
        "channels": list(fields[0].channels),
        "stain": layout.stain.channel if layout.stain else None,
        "stain_scale": {**asdict(scale), "rule": stain_scale},
        "pixel_size": sizes.pop() if len(sizes) == 1 else None,
        "binning": binning,
        "split": {**(split_record or {}), "counts": dict(Counter(split_of.values()))},
        "source": source,
        "layout": {
            "pattern": layout.pattern,
            "inputs": [str(role) for role in layout.inputs],
            "stain": str(layout.stain) if layout.stain else None,
            "labels": list(layout.labels),
            "group": layout.group,
        },
        "percentiles": PERCENTILES,
        "fields": entries,
    }
    for entry in entries:
        (partial / FIELDS_DIR / entry["name"] / _RECORD).unlink()
    (partial / DESCRIPTION).write_text(json.dumps(record, indent=1))
    partial.rename(out)
    return out


def _convert(tasks: list[tuple], workers: int, progress: Callable) -> list[dict]:
    if workers <= 1:
        return [write_field(*task) for task in progress(tasks, desc="prepare", unit="field")]
    # spawn: forked children would inherit threads of whatever else runs in this process.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(write_field, *task) for task in tasks]
        try:
            for future in progress(
                as_completed(futures), total=len(futures), desc="prepare", unit="field"
            ):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _stain_scale(
    root: Path, entries: list[dict], fields: Sequence[CheckedField], rule: str
) -> StainScale:
    """The scale over all training fields; 0..1 of nothing where the data set has no stain."""
    dtype = fields[0].stain_dtype
    if dtype is None:
        return StainScale(0.0, 1.0)
    if rule == "dtype":
        return StainScale.from_dtype(dtype)
    names = [entry["name"] for entry in entries if entry["split"] == "train"]
    return StainScale.from_percentiles(
        np.load(root / FIELDS_DIR / name / STAIN, mmap_mode="r") for name in names
    )
