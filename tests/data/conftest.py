"""Small raw folders and prepared data sets for the tests of the data room."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from isl_jax.data.normalisation import NORMALISATIONS
from isl_jax.data.preparation import prepare
from isl_jax.data.store import Dataset, open_dataset
from isl_jax.ingest.checked import check_fields, recipe_of
from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.layouts import Layout, Role

LAYOUT = Layout(
    pattern="{field}_{channel}{suffix}",
    inputs=(Role("phase"), Role("phase"), Role("bright")),
    stain=Role("dapi"),
    labels=("masks",),
)


def draw_field(rng: np.random.Generator, height: int, width: int) -> dict[str, np.ndarray]:
    """Discs on noise: {"phase", "bright", "dapi": uint16 [H, W], "masks": uint16 labels}."""
    rows, columns = np.mgrid[:height, :width]
    masks = np.zeros((height, width), np.uint16)
    for label in range(1, 6):
        centre, radius = rng.integers(0, (height, width)), rng.integers(3, 9)
        masks[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2] = label
    noise = rng.normal(1000, 30, (3, height, width))
    noise += np.array([200, -150, 900])[:, None, None] * (masks > 0)
    phase, bright, dapi = noise.astype(np.uint16)
    return {"phase": phase, "bright": bright, "dapi": dapi, "masks": masks}


def write_raw(folder: Path, sizes: dict[str, tuple[int, int]], *, seed: int = 0) -> None:
    """Write `<field>_<channel>.tif` for every field of a size."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in sizes.items():
        for channel, image in draw_field(rng, *size).items():
            tifffile.imwrite(folder / f"{name}_{channel}.tif", image)


def prepare_raw(
    folder: Path,
    out: Path,
    split_of: dict[str, str],
    *,
    workers: int = 1,
    on_field=lambda: None,
    **options,
) -> Dataset:
    """Prepare such a folder, by a recipe of these options, and open it."""
    fields, _ = match_files(folder, LAYOUT)
    checked, recipe = check_fields(fields, LAYOUT), recipe_of(LAYOUT, **options)
    return open_dataset(prepare(checked, split_of, out, recipe, workers=workers, on_field=on_field))


def write_ome_set(
    folder: Path, image: np.ndarray, names: list[str], *, by: str = "C"
) -> list[Path]:
    """One file a channel (or plane) of image [C, Z, Y, X], each describing the whole set."""
    along = "CZ".index(by)
    files = {k: f"x_{by}{k}.ome.tif" for k in range(image.shape[along])}
    blocks = ""
    for at in np.ndindex(*image.shape[:2]):
        number, page = at[along], at[1 - along]
        blocks += (
            f'<TiffData FirstC="{at[0]}" FirstZ="{at[1]}" FirstT="0" IFD="{page}" PlaneCount="1">'
            f'<UUID FileName="{files[number]}">urn:uuid:{number}</UUID></TiffData>'
        )
    channels = "".join(
        f'<Channel ID="Channel:0:{k}" Name="{name}" SamplesPerPixel="1"/>'
        for k, name in enumerate(names)
    )
    C, Z, Y, X = image.shape
    for number, name in files.items():
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/'
            f'Schemas/OME/2016-06" UUID="urn:uuid:{number}"><Image ID="Image:0"><Pixels ID="P:0" '
            f'DimensionOrder="XYZCT" Type="uint16" SizeX="{X}" SizeY="{Y}" SizeZ="{Z}" '
            f'SizeC="{C}" SizeT="1" PhysicalSizeX="0.5">{channels}{blocks}</Pixels></Image></OME>'
        )
        with tifffile.TiffWriter(folder / name, ome=False) as writer:
            for page, plane in enumerate(image.take(number, axis=along)):
                text = xml.encode() if page == 0 else None
                writer.write(
                    plane, description=text, metadata=None, photometric="minisblack",
                    contiguous=False,
                )  # fmt: skip
    return [folder / name for name in files.values()]


@pytest.fixture(scope="session")
def flat_dataset(dataset, tmp_path_factory) -> Dataset:
    """The same fields, flat, their stains scaled by the field; d's shows nothing."""
    root = tmp_path_factory.mktemp("flat")
    shutil.copytree(dataset.root.parent / "raw", root / "raw")
    dark = np.random.default_rng(0).integers(100, 110, (40, 72)).astype(np.uint16)
    tifffile.imwrite(root / "raw" / "d_dapi.tif", dark)
    split_of = {field.name: field.split for field in dataset.fields}
    options = {"normalisation": NORMALISATIONS["flat"], "stain_scale": "field"}
    return prepare_raw(root / "raw", root / "prepared", split_of, **options)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Dataset:
    """Six small fields: a..d train, e val, f test; d is smaller than the crops of 48."""
    root = tmp_path_factory.mktemp("dataset")
    names = dict.fromkeys("abcef", (80, 96)) | {"d": (40, 72)}
    write_raw(root / "raw", names)
    split_of = {name: {"e": "val", "f": "test"}.get(name, "train") for name in names}
    return prepare_raw(root / "raw", root / "prepared", split_of)
