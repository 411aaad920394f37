"""Every place where a file is read: what a sound one looks like, and how it is read."""

import dataclasses
import io
import json
import lzma
import pickle
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import roifile
import tifffile
from imagecodecs import png_encode
from safetensors.numpy import save_file

from isl_jax.data import splits
from isl_jax.data.batches import load_crop
from isl_jax.data.crops import Crop
from isl_jax.data.store import open_dataset
from isl_jax.inference import folder as predictions
from isl_jax.inference.info import read_info
from isl_jax.inference.model import load_model
from isl_jax.inference.opening import roles_of
from isl_jax.inference.sources import find_sources
from isl_jax.ingest import labels, listing, readers
from isl_jax.ingest.checked import check_fields
from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.presets import load_layout
from isl_jax.ingest.public import load_registry
from isl_jax.locks import locked
from isl_jax.models.weights import read_state_dict
from isl_jax.simulate import simulation
from isl_jax.simulate.writing import write_study
from isl_jax.study import duration
from isl_jax.study.planning import PlannedRun
from isl_jax.study.records import read_prediction, read_rows, read_summary, recorded_crops
from isl_jax.study.workdir import changed_settings
from isl_jax.task import Kind, Task

EARLIER = Path(__file__).parents[1] / "earlier"
_RNG = np.random.default_rng(0)
PLANE = (_RNG.random((24, 20)) * 4000).astype(np.uint16)
STACK = (_RNG.random((3, 24, 20)) * 4000).astype(np.uint16)
IDS = np.repeat(np.repeat(np.arange(6, dtype=np.uint16).reshape(2, 3), 12, 0), 7, 1)[:, :20]


@dataclasses.dataclass(frozen=True)
class Surface:
    """`make` writes a sound seed into an empty folder, `use` reads it as a command would.

    `names` are those of images or fields that a message may name in the file's place; `rare`
    surfaces take long and get a smaller share of the mutants.
    """

    name: str
    make: Callable[[Path], object]
    use: Callable[[Path], object]
    rare: bool = False
    names: tuple[str, ...] = ()


def _image(name: str, write: Callable[[Path], object], **options: Any) -> Surface:
    def use(folder: Path) -> None:
        path = folder / name
        readers.inspect(path, **options)
        image = readers.open_image(path, **options)
        for channel in range(min(4, len(image.info.channels))):
            image.read(channel, [0])
        image.read(0)

    return Surface(name, lambda folder: write(folder / name), use)


def _labels(name: str, write: Callable[[Path], object]) -> Surface:
    return Surface(
        f"labels {name}",
        lambda folder: write(folder / name),
        lambda folder: labels.read_label_image(folder / name),
    )


def _tiff(**options: Any) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, options.pop("data", PLANE), **options)


def _stack(**options: Any) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, STACK, **options)


def _png(data: np.ndarray) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(bytes(png_encode(data)))


def _seg(path: Path) -> None:
    buffer = io.BytesIO()
    content = {"masks": IDS, "outlines": IDS > 4, "chan_choose": [0, 0], "filename": "a.tif"}
    np.lib.format.write_array(buffer, np.array(content, object), allow_pickle=True)
    path.write_bytes(buffer.getvalue())


def _rois(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(3):
            square = np.array([[2, 2], [2, 8], [8, 8], [8, 2]]) + 4 * k
            archive.writestr(f"{k}.roi", roifile.ImagejRoi.frompoints(square).tobytes())


def _zarr(path: Path, *, version: int) -> None:
    """An OME-Zarr image of one level, its chunks as they are."""
    axes = [{"name": n, "type": "channel" if n == "c" else "space"} for n in "cyx"]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 0.5, 0.5]}]}
    multiscales = [{"version": "0.4", "axes": axes, "datasets": [level]}]
    (path / "0").mkdir(parents=True)
    shape = list(STACK.shape)
    if version == 2:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps({"multiscales": multiscales}))
        array = {
            "zarr_format": 2, "shape": shape, "chunks": [1, 24, 20], "dtype": "<u2", "order": "C",
            "compressor": {"id": "zlib", "level": 1}, "fill_value": 0, "filters": None,
            "dimension_separator": "/",
        }  # fmt: skip
        (path / "0/.zarray").write_text(json.dumps(array))
    else:
        ome = {"version": "0.5", "multiscales": multiscales}
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        (path / "zarr.json").write_text(json.dumps(group))
        array = {
            "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": "uint16",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 24, 20]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0, "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        }  # fmt: skip
        (path / "0/zarr.json").write_text(json.dumps(array))
    import zlib

    for k, plane in enumerate(STACK):
        chunk = path / "0" / ("" if version == 2 else "c") / f"{k}/0/0"
        chunk.parent.mkdir(parents=True)
        content = plane.tobytes()
        chunk.write_bytes(zlib.compress(content, 1) if version == 2 else content)


def _pth(path: Path) -> None:
    """A state dict in PyTorch's zip format, written by hand."""

    class Named:
        def __init__(self, module: str, name: str, arguments: tuple = ()) -> None:
            self.module, self.name, self.arguments = module, name, arguments

    class Storage:
        def __init__(self, key: str, count: int) -> None:
            self.key, self.count = key, count

    class Pickler(pickle._Pickler):  # the one in Python: names need not exist
        def persistent_id(self, obj: Any) -> Any:
            if isinstance(obj, Storage):
                return ("storage", Named("torch", "FloatStorage"), obj.key, "cpu", obj.count)
            return None

        def save(self, obj: Any, save_persistent_id: bool = True) -> Any:
            if isinstance(obj, Named):
                self.write(f"c{obj.module}\n{obj.name}\n".encode())
                if obj.arguments:
                    super().save(obj.arguments)
                    self.write(pickle.REDUCE)
                return None
            return super().save(obj, save_persistent_id)

    arrays = {"a.weight": (4, 3), "a.bias": (4,)}
    values = {
        name: Named(
            "torch._utils",
            "_rebuild_tensor_v2",
            (Storage(str(k), int(np.prod(shape))), 0, shape, (*shape[1:], 1), False, {}),
        )
        for k, (name, shape) in enumerate(arrays.items())
    }
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(values)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", buffer.getvalue())
        archive.writestr("w/byteorder", "little")
        for k, shape in enumerate(arrays.values()):
            archive.writestr(f"w/data/{k}", np.zeros(shape, np.float32).tobytes())


def _earlier(name: str, *, weights: bool = False) -> Callable[[Path], None]:
    """What the version before wrote, as `earlier_test` unpacks it."""

    def make(folder: Path) -> None:
        for path in (EARLIER / name).rglob("*"):
            to = folder / str(path.relative_to(EARLIER)).replace("grid", "runs")
            if path.is_dir() or (path.suffix in (".xz", ".npz") and not weights):
                continue
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".xz":
                to.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
            elif path.suffix == ".npy":
                shutil.copy(path, to)
            elif path.suffix != ".npz":
                to.write_text(path.read_text().replace("@ROOT@", str(folder)))

    return make


def _sweep(folder: Path) -> None:
    _earlier("sweep_nucleus")(folder)
    _earlier("data/nucleus")(folder)
    for run in (folder / "sweep_nucleus/runs").iterdir():
        (run / "evaluation/predictions").mkdir()
        for field in ("s0001", "s0002"):
            image = np.ones((144, 144), np.uint16)
            tifffile.imwrite(run / f"evaluation/predictions/{field}_labels.tif", image)


def _use_dataset(folder: Path) -> None:
    dataset = open_dataset(folder / "data/nucleus")
    for field in dataset.fields:
        dataset.standardised(field.name)
        if field.has_stain:
            dataset.field_stain_scale(field.name).scale(dataset.stain_image(field.name))
        if field.has_labels:
            dataset.label_boxes(field.name)


def _partial(folder: Path) -> None:
    """A data set whose labels say nothing in a half of their fields."""
    _earlier("data/nucleus")(folder)
    path = folder / "data/nucleus/dataset.json"
    record = json.loads(path.read_text())
    for entry in record["fields"]:
        entry["has_ignored"] = entry["has_labels"]
        ignored = np.zeros((entry["height"], entry["width"]), bool)
        ignored[:, entry["width"] // 2 :] = True
        np.save(path.parent / "fields" / entry["name"] / "ignored.npy", ignored)
    path.write_text(json.dumps(record))


def _use_partial(folder: Path) -> None:
    dataset = open_dataset(folder / "data/nucleus")
    for field in dataset.fields:
        size = min(64, field.height, field.width)
        load_crop(dataset, Crop(field.name, 0, 0, size), Task(Kind.SEMANTIC))


def _use_sweep(folder: Path) -> None:
    from isl_jax.report import tables
    from isl_jax.report.csv_tables import write_tables
    from isl_jax.report.panels import panels
    from isl_jax.report.results import find_studies

    for study in find_studies(folder / "sweep_nucleus"):
        tables.text_table(study)
        tables.image_scores(study)
        tables.settings(study)
        out = folder / "out"
        out.mkdir(exist_ok=True)
        write_tables(study, out, "x")
        for run in (study.pretext, *study.runs):
            if run:
                tables.run_facts(run, study)
                run.losses()
        panels(study, open_dataset(study.data_root))


_RUN = "sweep_nucleus/grid/isl_n1_seed0"


def _run(folder: Path) -> None:
    _earlier(_RUN)(folder)
    (run,) = folder.glob("*/runs/*")
    shutil.rmtree(run / "model")
    (run / "evaluation/predictions").mkdir()
    image = np.ones((144, 144), np.uint16)
    tifffile.imwrite(run / "evaluation/predictions/s0001_labels.tif", image)


def _use_run(folder: Path) -> None:
    """As a training, an evaluation or a sweep that finds its folder."""
    (workdir,) = folder.glob("*/runs/*")
    changed_settings({"study": "nucleus"}, workdir / "config.json")
    run = PlannedRun(None, workdir, None)  # pyright: ignore[reportArgumentType]
    assert run.step == 0
    summary = read_summary(workdir)
    recorded_crops(summary)
    for over in ("crops", "fields"):
        read_rows(workdir / f"evaluation/{over}.csv", over, summary)
    duration._overhead(workdir, duration._pixels_per_second(workdir) or 1.0)
    read_prediction(workdir, "s0001", "labels", (144, 144))


def _model(folder: Path) -> None:
    _earlier("sweep_nucleus/grid/isl_n1_seed0/model", weights=True)(folder)


def _use_model(folder: Path) -> None:
    load_model(folder / "sweep_nucleus/runs/isl_n1_seed0/model")


def _use_description(folder: Path) -> None:
    read_info(folder / "sweep_nucleus/runs/isl_n1_seed0/model/model.json")


def _records(folder: Path) -> None:
    (folder / "records").mkdir()
    for k in range(2):
        tifffile.imwrite(folder / f"a{k}.tif", PLANE)
        record = predictions.Record(
            name=f"a{k}", inputs=predictions.stamps([folder / f"a{k}.tif"]), outputs=["labels"],
            files=[f"a{k}_labels.tif"], fingerprint="0", size=[24, 20], num_objects=3,
        )  # fmt: skip
        predictions.write_record(folder, record)


def _use_records(folder: Path) -> None:
    for record in predictions.read_records(folder):
        predictions.is_another(record, [folder / "b.tif"])
        predictions.files_of(folder, record.name)
        f"{record.num_objects} {record.pixel_size} {record.size[0]}"
    listing.predicted_in(folder)


def _list(folder: Path) -> None:
    for k in range(2):
        tifffile.imwrite(folder / f"a{k}.tif", PLANE)
    (folder / "list.txt").write_text("a0.tif\n# a comment\na1.tif\n")


def _use_list(folder: Path) -> None:
    find_sources([str(folder / "list.txt")], roles_of(("0",)))


def _raw(folder: Path) -> None:
    for k in range(2):
        tifffile.imwrite(folder / f"f{k}_bf.tif", PLANE)
        tifffile.imwrite(folder / f"f{k}_cells.tif", IDS)
    layout = {
        "pattern": "{field}_{channel}{suffix}",
        "inputs": ["bf"],
        "labels": ["cells"],
        "study": "cell",
    }
    (folder / "layout.json").write_text(json.dumps(layout))
    lines = (f"{name} = {json.dumps(value)}" for name, value in layout.items())
    (folder / "layout.toml").write_text("\n".join(lines))
    (folder / "splits").mkdir()
    for name, fields in (("train", "f0\n"), ("val", ""), ("test", "f1\n")):
        (folder / "splits" / f"{name}.txt").write_text(fields)


def _use_raw(folder: Path) -> None:
    for suffix in ("json", "toml"):
        layout = load_layout(str(folder / f"layout.{suffix}"))
        fields, _ = match_files(folder, layout, exclude=None)
        for field in check_fields(fields, layout):
            field.load()
    splits.split_by_files({field.name: field.group for field in fields}, folder / "splits")


def _opera(folder: Path) -> None:
    images = []
    for channel in (1, 2):
        name = f"r01c01f01p01-ch{channel}sk1fk1fl1.tiff"
        tifffile.imwrite(folder / name, PLANE)
        images.append(
            f"<Image><URL>{name}</URL><Row>1</Row><Col>1</Col><FieldID>1</FieldID>"
            f"<PlaneID>1</PlaneID><ChannelID>{channel}</ChannelID>"
            f"<ChannelName>c{channel}</ChannelName></Image>"
        )
    text = '<?xml version="1.0"?><EvaluationInputData xmlns="http://a/b"><Images>'
    text += "".join(images) + "</Images></EvaluationInputData>"
    (folder / "Index.idx.xml").write_text(text)


def _use_opera(folder: Path) -> None:
    layout = dataclasses.replace(load_layout("opera"), inputs=load_layout("folder").inputs)
    layout = dataclasses.replace(layout, inputs=roles_of(("c1", "c2")), stain=None, labels=())
    fields, _ = match_files(folder, layout, exclude=None)
    for field in check_fields(fields, layout):
        field.load()


def _registry(folder: Path) -> None:
    source = Path(readers.__file__).with_name("public_registry.json")
    stored = json.loads(source.read_text())
    for value in stored.values():
        value["files"] = dict(list(value["files"].items())[:2])
    (folder / "registry.json").write_text(json.dumps(stored))


def _simulated(folder: Path) -> None:
    (folder / "sim").mkdir()
    parameters = simulation("nucleus", size=256, seed=0)
    stored = {"version": 1, **json.loads(json.dumps(dataclasses.asdict(parameters)))}
    (folder / "sim/simulation.json").write_text(json.dumps(stored))


def _use_simulated(folder: Path) -> None:
    def stop(items: Any, **_: Any) -> Any:
        return iter(())

    write_study(folder / "sim", simulation("nucleus", size=256, seed=0), 1, progress=stop)


def _lock(folder: Path) -> None:
    (folder / "w").mkdir()
    words = {
        "pid": 2**22 + 1,
        "host": platform.node(),
        "start": "",
        "since": "now",
        "command": "isl-train",
    }
    (folder / "w/.isl_jax.lock").write_text(json.dumps(words))


def _use_lock(folder: Path) -> None:
    with locked(folder / "w", "choose another --out"):
        pass


def _checkpoint(folder: Path) -> None:
    # In another process: who forks must not have started jax.
    made = (
        "import sys, pathlib; from tests.training.checkpoint_test import Checkpoints, state_at\n"
        "with Checkpoints(pathlib.Path(sys.argv[1])) as c: c.save(state_at(4), {'loader': 4})"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", made, str(folder)], cwd=root, check=True)


def _use_checkpoint(folder: Path) -> None:
    from tests.training.checkpoint_test import Checkpoints, state_at

    with Checkpoints(folder) as checkpoints:
        if checkpoints.latest_step is not None:
            checkpoints.restore(state_at(0))


OME = {"metadata": {"axes": "CYX", "Channel": {"Name": ["a", "b", "c"]}, "PhysicalSizeX": 0.5}}
RGB = np.stack([PLANE >> 8] * 3, -1).astype(np.uint8)

SURFACES: tuple[Surface, ...] = (
    _image("plain.tif", _tiff()),
    _image("zlib.tif", _tiff(compression="zlib", predictor=2)),
    _image("lzw.tif", _tiff(compression="lzw", rowsperstrip=5)),
    _image("tiled.tif", _tiff(tile=(16, 16), compression="zlib")),
    _image("float.tif", _tiff(data=PLANE.astype(np.float32), compression="zlib", predictor=3)),
    _image("big.tif", _tiff(bigtiff=True)),
    _image("stack.tif", _stack(photometric="minisblack")),
    _image("imagej.tif", _stack(imagej=True, metadata={"axes": "CYX"})),
    _image("stack.ome.tif", _stack(**OME)),
    _image("colours.tif", _tiff(data=RGB, photometric="rgb"), colour=True),
    _image("white.tif", _tiff(data=RGB[..., 0], photometric="miniswhite")),
    _image("grey.png", _png(PLANE)),
    _image("colours.png", _png(RGB), colour=True),
    _image("plain.npy", lambda path: np.save(path, STACK)),
    _image("a_seg.npy", _seg),
    _image("v2.zarr", lambda path: _zarr(path, version=2)),
    _image("v3.zarr", lambda path: _zarr(path, version=3)),
    _labels("ids.tif", _tiff(data=IDS)),
    _labels("ids.png", _png(IDS)),
    _labels("a_seg.npy", _seg),
    Surface("weights.pth", lambda f: _pth(f / "w.pth"), lambda f: read_state_dict(f / "w.pth")),
    Surface(
        "weights.safetensors",
        lambda f: save_file({"a.b": np.zeros((3, 4), np.float32)}, f / "w.safetensors"),
        lambda f: read_state_dict(f / "w.safetensors"),
    ),
    Surface("data set", _earlier("data/nucleus"), _use_dataset),
    Surface("partly annotated", _partial, _use_partial),
    Surface("sweep", _sweep, _use_sweep, rare=True),
    Surface("run", _run, _use_run),
    Surface("model.json", _model, _use_description),
    Surface("model", _model, _use_model, rare=True),
    Surface("checkpoint", _checkpoint, _use_checkpoint, rare=True),
    Surface("records", _records, _use_records),
    Surface("list", _list, _use_list),
    Surface("raw folder", _raw, _use_raw, names=("'f0'", "'f1'")),
    Surface("opera", _opera, _use_opera, names=("field 'r",)),
    Surface("registry", _registry, lambda f: load_registry(f / "registry.json")),
    Surface("simulation", _simulated, _use_simulated),
    Surface("lock", _lock, _use_lock),
)
