"""Folders of ours that are dropped on napari: a prepared data set, predictions, an evaluation.

And of the files of predictions those that napari alone would open without their scale: label
images and maps, and tables, whose rows become points.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

from isl_jax.data.binning import bin_average
from isl_jax.data.description import DESCRIPTION
from isl_jax.data.store import Dataset, Field, open_dataset
from isl_jax.files import read_json
from isl_jax.inference.folder import RECORDS, Record, read_record, read_records
from isl_jax.ingest import readers
from isl_jax.study.records import SUMMARY, evaluation_folder, read_rows, read_summary
from isl_jax.study.workdir import CONFIG
from isl_jax.tabular import read_csv
from isl_jax.viewer.layers import MICROMETRE, PIXEL, Channel, FieldOfView, LayerData, Place, stacked

_DATA_ROOT = {"data": {"root": str}}
# The maps and labels of a prediction as they are shown, below those that are named first.
_MAPS: tuple[tuple[str, dict], ...] = (
    ("stain", {"colormap": "cyan", "visible": False}),
    ("distance", {"colormap": "magma", "visible": False}),
    ("probability", {"colormap": "viridis", "limits": (0.0, 1.0), "visible": False}),
    ("labels", {"kind": "labels"}),
)


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """The reader of what is one of ours; None of all else, which napari knows better."""
    if isinstance(path, list) or reader_of(Path(path)) is None:
        return None
    return read_layers


def read_layers(path: str) -> list[LayerData]:
    """Layers of a folder of ours; ValueError or OSError in one line that names what is wrong."""
    reader = reader_of(Path(path))
    if reader is None:
        raise ValueError(f"{path}: no prepared data set, no predictions, no evaluation")
    return reader(Path(path))


def reader_of(path: Path) -> Callable[[Path], list[LayerData]] | None:
    """What reads a folder, told by what is in it, or one of its files."""
    if path.name in _FOLDERS and path.is_file():
        reader = _FOLDERS[path.name]
        return lambda file: reader(file.parent)
    if path.is_dir():
        found = (read for name, read in _FOLDERS.items() if (path / name).exists())
        return next(found, None)
    if _kind_of(path):
        return _map_layer
    return _table_layer if path.suffix == ".csv" and "x_px" in _first_line(path) else None


def _kind_of(path: Path) -> str | None:
    """Which output a TIFF file is, by its name."""
    kind = path.stem.rpartition("_")[2]
    return kind if kind in dict(_MAPS) and path.suffix == ".tif" else None


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline()


def dataset_layers(dataset: Dataset, fields: tuple[Field, ...]) -> list[LayerData]:
    """Inputs, stain and labels of fields of a prepared data set."""
    names = [field.name for field in fields]
    return stacked(
        [FieldOfView(field.name, (field.height, field.width), field.split) for field in fields],
        [
            *input_channels(dataset, names),
            Channel("labels", lambda i: labels_of(dataset, names[i]), kind="labels"),
        ],
        place_of(dataset),
    )


def place_of(dataset: Dataset) -> Place:
    """Where the fields of a data set lie."""
    side = dataset.pixel_size
    return Place.of((side, side) if side else None, dataset.binning)


def labels_of(dataset: Dataset, name: str) -> np.ndarray | None:
    """Labels of a field, None if it has none."""
    return np.asarray(dataset.labels(name)) if dataset.field(name).has_labels else None


def input_channels(dataset: Dataset, names: list[str]) -> list[Channel]:
    """The label-free planes of some fields, each once, the first one shown, and the stain."""
    first = {channel: index for index, channel in reversed([*enumerate(dataset.channels)])}

    def plane(index: int) -> Callable[[int], np.ndarray]:
        return lambda field: np.asarray(dataset.inputs(names[field])[..., index])

    def stain(field: int) -> np.ndarray | None:
        name = names[field]
        return np.asarray(dataset.stain_image(name)) if dataset.field(name).has_stain else None

    found = [
        Channel(channel, plane(index), visible=index == 0)
        for channel, index in sorted(first.items(), key=lambda item: item[1])
    ]
    stain_name = dataset.stain or "stain"
    return [*found, Channel(f"{stain_name} (stain)", stain, colormap="cyan", visible=False)]


def _dataset_layers(root: Path) -> list[LayerData]:
    dataset = open_dataset(root)
    return dataset_layers(dataset, dataset.fields)


def _evaluation_layers(folder: Path) -> list[LayerData]:
    """The withheld fields of a run with their truth and what the run made of them."""
    workdir, split = folder.parent, folder.name.removeprefix(evaluation_folder(Path()).name)[1:]
    summary = read_summary(workdir, split or "test")
    assert summary is not None
    config = read_json(workdir / CONFIG, remedy="evaluate the run again", keys=_DATA_ROOT)
    dataset = open_dataset(config["data"]["root"])
    rows = read_rows(folder / "fields.csv", "fields", summary)
    names = [row["field"] for row in rows]
    shapes = [(dataset.field(name).height, dataset.field(name).width) for name in names]
    metric = summary["metric"]
    notes = [f"{'mAP' if metric == 'map' else metric.upper()} {row[metric]:.2f}" for row in rows]
    return stacked(
        [FieldOfView(*field) for field in zip(names, shapes, notes, strict=True)],
        [
            *input_channels(dataset, names),
            Channel("truth", lambda i: labels_of(dataset, names[i]), "labels", visible=False),
            *_found(folder / "predictions", names),
        ],
        place_of(dataset),
    )


def _prediction_layers(folder: Path) -> list[LayerData]:
    """Images of a folder of predictions, where they still are, and what was written of each."""
    records = read_records(folder)
    if not records:
        raise ValueError(f"{folder}: no image has been predicted here yet")
    return stacked(
        [
            FieldOfView(record.name, (record.size[0], record.size[1]), _count(record))
            for record in records
        ],
        [*_images(records), *_found(folder, [record.name for record in records])],
        Place.of(records[0].spacing, records[0].binning),
    )


def _count(record: Record) -> str:
    return "" if record.num_objects is None else f"{record.num_objects} objects"


def _found(folder: Path, names: list[str]) -> list[Channel]:
    def reading(kind: str) -> Callable[[int], np.ndarray | None]:
        def read(field: int) -> np.ndarray | None:
            path = folder / f"{names[field]}_{kind}.tif"
            if not path.exists():
                return None
            pixels = tifffile.imread(path, key=0)
            return pixels.astype(np.int32) if kind == "labels" else pixels

        return read

    return [Channel(kind, reading(kind), **shown) for kind, shown in _MAPS]


def _images(records: list[Record]) -> list[Channel]:
    """The files that were predicted, of each its channels, of a stack the plane in the middle."""
    paths = [_image_files(record) for record in records]
    if not paths[0]:
        return []
    planes = [(n, c) for n, path in enumerate(paths[0]) for c in _channels(path)]

    def reading(file: int, channel: int) -> Callable[[int], np.ndarray | None]:
        def read(field: int) -> np.ndarray | None:
            if file >= len(paths[field]):
                return None
            image = readers.open_image(paths[field][file], colour=True)
            pixels = image.read(channel, [image.info.planes // 2])[0]
            binning = records[field].binning
            return bin_average(pixels, binning) if binning > 1 else pixels

        return read

    found = []
    for file, channel in planes:
        path = paths[0][file]
        name = path.stem.removeprefix(f"{records[0].name}_")
        named = readers.inspect(path, colour=True).channels[channel]
        several = len(_channels(path)) > 1
        name = f"{name} {named}" if several else name
        found.append(Channel(name, reading(file, channel), visible=(file, channel) == planes[0]))
    return found


def _image_files(record: Record) -> list[Path]:
    files = [Path(stamp[0]) for stamp in record.inputs]
    return [path for path in files if path.exists() and path.name not in record.all_files]


def _channels(path: Path) -> range:
    return range(len(readers.inspect(path, colour=True).channels))


def _map_layer(path: Path) -> list[LayerData]:
    """A label image or a map, at the scale that its file tells, or the record beside it."""
    kind, image = str(_kind_of(path)), readers.open_image(path)
    record = read_record(path.parent, path.stem.removesuffix(f"_{kind}"))
    binning = record.binning if record and path.name in record.files else 1
    pixels = image.read()[0]
    pixels = pixels.astype(np.int32) if kind == "labels" else pixels
    shown = {**dict(_MAPS)[kind], "visible": True}
    field = FieldOfView(path.stem.removesuffix(f"_{kind}"), (pixels.shape[0], pixels.shape[1]))
    channel = Channel(kind, lambda _: pixels, **shown)
    return stacked([field], [channel], Place.of(image.info.spacing, binning))


def _table_layer(path: Path) -> list[LayerData]:
    """A point for every object, which carries its row; in µm where the table has such columns."""
    rows = read_csv(path, remedy="predict again", needed=["id", "x_px", "y_px"])
    unit = "um" if rows and {"x_um", "y_um"} <= rows[0].keys() else "px"
    places = np.array([[row[f"y_{unit}"], row[f"x_{unit}"]] for row in rows]).reshape(-1, 2)
    names = list(rows[0]) if rows else []
    shown = {
        "name": f"{path.stem} objects",
        "features": {name: [row[name] for row in rows] for name in names},
        "size": 5 * (0.5 if unit == "um" else 1),
        "units": [MICROMETRE if unit == "um" else PIXEL] * 2,
    }
    return [(places, shown, "points")]


# What a folder holds that is one of ours → what reads it.
_FOLDERS: dict[str, Callable[[Path], list[LayerData]]] = {
    DESCRIPTION: _dataset_layers,
    SUMMARY: _evaluation_layers,
    RECORDS: _prediction_layers,
}
