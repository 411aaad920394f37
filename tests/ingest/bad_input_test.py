"""What users' folders get wrong: one clear line each, and nothing half-written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from imagecodecs import png_encode

from isl_jax.data.preparation import prepare
from isl_jax.data.splits import split_by_files, split_by_fraction, split_by_groups
from isl_jax.ingest.checked import CheckedField, check_fields, recipe_of
from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.layouts import layout_from_options
from isl_jax.ingest.presets import PRESETS, load_layout
from tests.data.conftest import write_raw

OPTIONS = {
    "pattern": "{field}_{channel}{suffix}",
    "inputs": "phase,bright",
    "stain": "dapi",
    "labels": "masks",
}


def attempt(source: Path, out: Path, **changes) -> None:
    """Match, check, split and prepare, as the command does."""
    preset = changes.pop("preset", None)
    split = changes.pop("split", lambda groups: dict.fromkeys(groups, "train"))
    exclude = changes.pop("exclude", None)
    stain_scale = changes.pop("stain_scale", "percentile")
    workers = changes.pop("workers", 1)
    layout = load_layout(preset) if preset else layout_from_options(OPTIONS | changes)
    fields, _ = match_files(source, layout, exclude=exclude)
    checked = check_fields(fields, layout)
    split_of = split({field.name: field.group for field in fields})
    prepare(checked, split_of, out, recipe_of(layout, stain_scale=stain_scale), workers=workers)


def rewrite(name: str, image, **options) -> Callable[[Path], object]:
    """Replace a file of the raw folder by another image."""
    return lambda raw: tifffile.imwrite(raw / name, image, **options)


def with_value(name: str, value: float) -> Callable[[Path], object]:
    """Make a file float32 and set one of its pixels."""

    def change(raw: Path) -> None:
        image = tifffile.imread(raw / name).astype(np.float32)
        image[3, 4] = value
        tifffile.imwrite(raw / name, image)

    return change


def cut(name: str, keep: float) -> Callable[[Path], object]:
    """Keep only the first part of a file, as an interrupted copy does."""
    return lambda raw: os.truncate(raw / name, int((raw / name).stat().st_size * keep))


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    """Write a file of that content."""
    data = content.encode() if isinstance(content, str) else content
    return lambda raw: (raw / name).write_bytes(data)


def remove(*names: str) -> Callable[[Path], object]:
    """Delete files."""
    return lambda raw: [(raw / name).unlink() for name in names]


def corrupt(name: str) -> Callable[[Path], object]:
    """Compress a file, then overwrite the compressed pixels: a header that promises too much."""

    def change(raw: Path) -> None:
        tifffile.imwrite(raw / name, tifffile.imread(raw / name), compression="zlib")
        with tifffile.TiffFile(raw / name) as tiff:
            page = tiff.pages.first
            offset, size = page.dataoffsets[0], page.databytecounts[0]
        with (raw / name).open("r+b") as file:
            file.seek(offset)
            file.write(b"\xff" * size)

    return change


def also_as_png(raw: Path) -> None:
    (raw / "a_phase.png").write_bytes(png_encode(np.ones((40, 50), np.uint16)))


GREY = np.arange(2000, dtype=np.uint16).reshape(40, 50)
STACK = np.stack([GREY, GREY + 1])
COLOUR = np.stack([GREY % 250, GREY % 251, GREY % 7], -1).astype(np.uint8)

# name: (what is wrong, options, what the message tells)
CASES: dict[str, tuple[Callable[[Path], object], dict, list[str]]] = {
    "no folder": (shutil.rmtree, {}, ["raw", "no such folder", "raw files"]),
    "empty folder": (
        lambda raw: [file.unlink() for file in raw.iterdir()],
        {},
        ["no file matches", "phase"],
    ),
    "other names": (lambda raw: None, {"pattern": "{field}-{channel}.tif"}, ["no file matches"]),
    "missing channel": (remove("b_bright.tif"), {}, ["field 'b'", "'bright'", "--exclude='^b$'"]),
    "missing stain": (remove("b_dapi.tif"), {}, ["field 'b'", "'dapi'", "masks, phase"]),
    "misspelt channel": (lambda raw: None, {"inputs": "phase,brigth"}, ["'brigth'"]),
    "no input channel": (lambda raw: None, {"inputs": ""}, ["--inputs"]),
    "truncated TIFF": (cut("b_phase.tif", 0.5), {}, ["b_phase.tif", "copy"]),
    "truncated TIFF header": (cut("b_phase.tif", 0.01), {}, ["b_phase.tif", "copy it again"]),
    "empty file": (cut("b_phase.tif", 0), {}, ["b_phase.tif", "damaged or incomplete"]),
    "not a TIFF": (text("b_phase.tif", "Time;Mean\n"), {}, ["b_phase.tif", "not a TIFF"]),
    "corrupt compression": (corrupt("b_phase.tif"), {}, ["b_phase.tif", "damaged"]),
    "not a PNG": (
        lambda raw: (raw / "b_phase.tif").rename(raw / "b_phase.png"),
        {},
        ["b_phase.png", "not a PNG"],
    ),
    "RGB image": (
        rewrite("b_phase.tif", COLOUR, photometric="rgb"),
        {},
        ["b_phase.tif", "colour", "expected grey", "NAME:rgb"],
    ),
    "colours of a grey image": (
        lambda raw: None,
        {"inputs": "phase:rgb"},
        ["a_phase.tif", "is a grey image, but phase:rgb"],
    ),
    "RGB image by number": (
        lambda raw: (
            [tifffile.imwrite(path, COLOUR, photometric="rgb") for path in raw.glob("*_[bdp]*.tif")]
            + [path.unlink() for path in raw.glob("*_masks.tif")]
        ),
        {"preset": "cellpose"},
        ["a_bright.tif", "colour", "R,G,B"],
    ),
    "stain in colour": (
        lambda raw: [
            rewrite(f"{name}_dapi.tif", np.stack([GREY % 250] * 3, -1).astype("u1"))(raw)
            for name in "abc"
        ],
        {"stain": "dapi:rgb"},
        ["a_dapi.tif", "several planes"],
    ),
    "RGB labels": (
        lambda raw: [
            (raw / "b_masks.tif").unlink(),
            (raw / "b_masks.png").write_bytes(png_encode(COLOUR)),
        ],
        {},
        ["b_masks.png", "labels are a colour image", "save the ids"],
    ),
    "NaN": (with_value("b_phase.tif", np.nan), {}, ["b_phase.tif", "1 pixels", "NaN", "--exclude"]),
    "infinity": (with_value("b_dapi.tif", np.inf), {}, ["b_dapi.tif", "infinite"]),
    "complex values": (
        rewrite("b_phase.tif", GREY.astype(np.complex64)),
        {},
        ["b_phase.tif", "complex64", "expected integers or floats"],
    ),
    "all-zero plane": (rewrite("b_phase.tif", GREY * 0), {}, ["b_phase.tif", "every pixel is 0"]),
    "empty plane of a stack": (
        rewrite("b_phase.tif", np.stack([GREY, GREY * 0]), photometric="minisblack"),
        {"inputs": "phase:max,bright"},
        ["b_phase.tif, plane 1", "every pixel is 0"],
    ),
    "saturated stain": (
        rewrite("b_dapi.tif", GREY * 0 + 65535),
        {},
        ["b_dapi.tif", "every pixel is 65535"],
    ),
    "too few planes": (
        rewrite("b_phase.tif", STACK, photometric="minisblack"),
        {"inputs": "phase[0,1,2,3],bright"},
        ["a_phase.tif", "has 1 plane", "phase[0,1,2,3]"],
    ),
    "unequal planes": (
        rewrite("b_phase.tif", STACK, photometric="minisblack"),
        {},
        ["field 'b' gives 3 input channels", "field 'a' 2"],
    ),
    "stain stack unreduced": (
        rewrite("a_dapi.tif", STACK, photometric="minisblack"),
        {},
        ["a_dapi.tif", "several planes", "dapi:max"],
    ),
    "time series": (
        rewrite("b_phase.tif", np.stack([STACK] * 3), imagej=True, metadata={"axes": "TZYX"}),
        {},
        ["b_phase.tif", "has 3 time points, expected one"],
    ),
    "several channels in one file": (
        rewrite("b_phase.tif", STACK, imagej=True, metadata={"axes": "CYX"}),
        {},
        ["b_phase.tif", "holds 2 channels"],
    ),
    "unequal channel sizes": (
        rewrite("b_bright.tif", GREY[:20]),
        {},
        ["b_bright.tif", "20×50", "b_phase.tif", "40×50"],
    ),
    "labels of another size": (rewrite("b_masks.tif", GREY[:, :25]), {}, ["b_masks.tif", "40×25"]),
    "labels not integers": (
        rewrite("b_masks.tif", GREY.astype(np.float32) + 0.5),
        {},
        ["b_masks.tif", "float32", "no whole numbers"],
    ),
    "negative labels": (
        rewrite("b_masks.tif", GREY.astype(np.int16) - 5),
        {},
        ["b_masks.tif", "from -5", "number the cells from 1"],
    ),
    "labels in several planes": (
        rewrite("b_masks.tif", STACK, photometric="minisblack"),
        {},
        ["b_masks.tif", "2 planes"],
    ),
    "stains of two depths": (
        lambda raw: tifffile.imwrite(
            raw / "b_dapi.tif",
            (tifffile.imread(raw / "b_dapi.tif") // 256 + GREY // 64).astype("u1"),
        ),
        {},
        ["field 'b' is uint8", "'a' uint16"],
    ),
    "float stain by dtype": (
        lambda raw: [with_value(f"{name}_dapi.tif", 1.5)(raw) for name in "abc"],
        {"stain_scale": "dtype"},
        ["float32 stain", "--stain_scale=percentile"],
    ),
    "field given twice": (also_as_png, {}, ["'a'", "twice", "a_phase.png", "a_phase.tif"]),
    "group not in the name": (lambda raw: None, {"group": r"well\d"}, ["'a'", r"'well\\d'"]),
    "bad group expression": (lambda raw: None, {"group": "("}, ["'('", "regular expression"]),
    "bad exclude expression": (lambda raw: None, {"exclude": "["}, ["--exclude='['"]),
    "everything excluded": (lambda raw: None, {"exclude": "."}, ["no file matches"]),
    "unknown layout": (lambda raw: None, {"preset": "dataset3"}, ["'dataset3'", *PRESETS]),
    "no Opera index": (lambda raw: None, {"preset": "opera"}, ["Index.idx.xml"]),
    "damaged Opera index": (
        text("Index.idx.xml", "<Images><Image>"),
        {"preset": "opera"},
        ["Index.idx.xml", "damaged"],
    ),
    "too few groups": (
        lambda raw: None,
        {
            "group": "^()",
            "split": lambda groups: split_by_fraction(groups, test=0.2, val=0, seed=0),
        },
        ["1 group", "--test=0"],
    ),
    "unknown test group": (
        lambda raw: None,
        {"split": lambda groups: split_by_groups(groups, test=["z"])},
        ["'z'", "a, b, c"],
    ),
    "group on both sides": (
        lambda raw: [(raw / "train.txt").write_text("a\nb"), (raw / "test.txt").write_text("c")],
        {"group": "^()", "split": lambda groups: split_by_files(groups, SPLIT_FOLDER[0])},
        ["group ''", "must stay on one side"],
    ),
}
SPLIT_FOLDER: list[Path] = []


@pytest.fixture
def raw(tmp_path):
    """A sound raw folder of three fields."""
    write_raw(tmp_path / "raw", dict.fromkeys("abc", (40, 50)))
    SPLIT_FOLDER[:] = [tmp_path / "raw"]
    return tmp_path / "raw"


def test_the_folder_is_sound_before_it_is_spoilt(raw, tmp_path):
    attempt(raw, tmp_path / "out")
    assert (tmp_path / "out" / "dataset.json").is_file()


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_that_names_the_cause_and_nothing_is_written(case, raw, tmp_path):
    spoil, options, told = CASES[case]
    spoil(raw)
    with pytest.raises((ValueError, OSError)) as caught:
        attempt(raw, tmp_path / "out", **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500, message
    for word in told:
        assert word in message, message
    assert [path.name for path in tmp_path.iterdir()] in (["raw"], [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file(raw, tmp_path):
    (raw / "b_phase.tif").chmod(0)
    with pytest.raises(PermissionError, match=r"b_phase.tif: permission denied"):
        attempt(raw, tmp_path / "out")


def test_unreadable_file_seen_by_any_user(raw, tmp_path, monkeypatch):
    original = Path.open

    def refuse(path, *arguments, **options):
        if path.name == "b_phase.tif":
            raise PermissionError(13, "Permission denied")
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"b_phase.tif: permission denied; make"):
        attempt(raw, tmp_path / "out")


def test_a_fault_in_the_last_field_is_found_before_the_first_is_converted(
    raw, tmp_path, monkeypatch
):
    (raw / "c_bright.tif").unlink()
    monkeypatch.setattr(CheckedField, "load", pytest.fail)
    with pytest.raises(ValueError, match="field 'c' has no 'bright'"):
        attempt(raw, tmp_path / "out")


def test_a_fault_that_a_process_finds_is_one_line_too(raw, tmp_path):
    tifffile.imwrite(raw / "b_bright.tif", GREY * 0 + 7)
    with pytest.raises(ValueError, match=r"b_bright.tif: every pixel is 7") as caught:
        attempt(raw, tmp_path / "out", workers=2)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_field_without_labels_is_no_fault(raw, tmp_path):
    (raw / "b_masks.tif").unlink()
    attempt(raw, tmp_path / "out")
