"""How often a file is opened on its way from the folder to arrays."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile

from isl_jax.ingest import tiff
from isl_jax.ingest.checked import check_field, check_fields, read_role
from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.layouts import layout_from_options
from isl_jax.ingest.overview import look
from isl_jax.ingest.readers import ImageFiles
from tests.data.conftest import LAYOUT, write_raw

INSIDE = layout_from_options(
    {"pattern": "{field}.tif", "inputs": "0[0,2],1:max", "stain": "2:mean", "labels": []}
)


@pytest.fixture
def opened(monkeypatch):
    """Counts how often each TIFF file is parsed."""
    counts = Counter()

    class Counted(tifffile.TiffFile):
        def __init__(self, file, **options):
            counts[Path(file).name] += 1
            super().__init__(file, **options)

    monkeypatch.setattr(tiff, "TiffFile", Counted)
    return counts


def write_stack(folder):
    """One file of three channels and four planes, floats."""
    image = np.random.default_rng(0).random((4, 3, 20, 21)).astype(np.float32)
    metadata = {"axes": "ZCYX"}
    tifffile.imwrite(folder / "x.tif", image, imagej=True, metadata=metadata, compression="zlib")


def test_a_field_is_opened_once_to_check_it_and_once_to_read_it(tmp_path, opened):
    write_raw(tmp_path, {"a": (40, 50), "b": (40, 50)})
    fields, _ = match_files(tmp_path, LAYOUT)
    checked = check_fields(fields, LAYOUT)
    assert len(opened) == 8 and set(opened.values()) == {1}
    for field in checked:
        field.load()
    assert len(opened) == 8 and set(opened.values()) == {2}


def test_a_file_of_all_channels_is_opened_once_to_match_it_and_once_to_read_it(tmp_path, opened):
    write_stack(tmp_path)
    fields, _ = match_files(tmp_path, INSIDE)
    assert opened == {"x.tif": 1}
    (checked,) = check_fields(fields, INSIDE)
    opened.clear()
    checked.load()
    assert opened == {"x.tif": 1}


def test_checking_and_reading_share_one_opening(tmp_path, opened):
    write_raw(tmp_path, {"a": (40, 50)})
    (field,), _ = match_files(tmp_path, LAYOUT)
    files = ImageFiles()
    check_field(field, LAYOUT, files)
    for role in LAYOUT.roles():
        read_role(field, role, files)
    assert len(opened) == 4 and set(opened.values()) == {1}
    opened.clear()
    look(field, LAYOUT)
    assert len(opened) == 4 and set(opened.values()) == {1}


def test_no_file_stays_open(tmp_path):
    write_stack(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    files = ImageFiles()
    files.open(tmp_path / "x.tif").read(1, [2, 0])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
