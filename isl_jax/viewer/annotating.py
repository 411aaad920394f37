"""What the step Annotate does, without Qt: images of a folder, and what is drawn beside them."""

import dataclasses
from pathlib import Path

import numpy as np

from isl_jax.annotate.returned import RECORD, is_annotation_folder
from isl_jax.files import read_json
from isl_jax.ingest import readers
from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.fields import RawField
from isl_jax.ingest.layouts import Role, parse_roles
from isl_jax.ingest.listing import image_stem
from isl_jax.ingest.planes import read_role
from isl_jax.ingest.presets import PRESETS
from isl_jax.locks import locked
from isl_jax.outputs.rasters import write_labels
from isl_jax.viewer.commands import CommandLine, command_line
from isl_jax.viewer.layers import Place

# Channels of what is drawn: `<field>_masks.tif` is done, `<field>_unfinished.tif` is not.
MASKS, UNFINISHED = "masks", "unfinished"
# Of pixels that are neither cell nor background, in what is drawn.
IGNORE = 65535
_SUFFIXES = (".tif", ".tiff", ".png")


@dataclasses.dataclass(frozen=True)
class ToAnnotate:
    """A field of the folder, with the start of its files' names."""

    raw: RawField
    start: Path
    place: Place

    @property
    def name(self) -> str:
        """What it is called."""
        return self.raw.name

    def file(self, channel: str) -> Path:
        """The TIFF file of a channel of what is drawn."""
        return self.start.with_name(f"{self.start.name}_{channel}.tif")

    @property
    def is_done(self) -> bool:
        """Whether its masks are there."""
        return self.found(MASKS) is not None

    def found(self, channel: str) -> Path | None:
        """The file of a channel, None if there is none."""
        names = (self.start.with_name(f"{self.start.name}_{channel}{end}") for end in _SUFFIXES)
        return next((path for path in names if path.is_file()), None)


@dataclasses.dataclass(frozen=True)
class Annotation:
    """A folder of `<field>_<channel>` images in which masks are drawn.

    `inputs`, `stain` (may be empty) and `draft` as isl-prepare takes channels.
    """

    folder: Path
    inputs: str = "image"
    stain: str = "stain"
    draft: str = "draft"

    @property
    def is_suggested(self) -> bool:
        """Whether isl-annotate wrote the folder: its fields have an order, all of them is drawn."""
        return is_annotation_folder(self.folder)

    def fields(self) -> tuple[ToAnnotate, ...]:
        """All fields with the inputs, as suggested or by name; raises what isl-prepare would."""
        layout = dataclasses.replace(
            PRESETS["folder"], inputs=parse_roles(self.inputs), stain=None, labels=()
        )
        raw, _ = match_files(self.folder, layout)
        fields = tuple(self._field(field, layout.inputs[0]) for field in raw)
        if not self.is_suggested:
            return fields
        keys = {"fields": [{"name": str}]}
        record = read_json(
            self.folder / RECORD, remedy="make it again with isl-annotate", keys=keys
        )
        order = [field["name"] for field in record["fields"]]
        known = [field for field in fields if field.name in order]
        return tuple(sorted(known, key=lambda field: order.index(field.name)))

    def _field(self, raw: RawField, role: Role) -> ToAnnotate:
        if raw.fault is not None:
            raise raw.fault
        if role.channel not in raw.files:
            raise ValueError(f"{self.folder}: field {raw.name!r} has no {role.channel}")
        part = raw.files[role.channel][0]
        stem = image_stem(part.path).removesuffix(f"_{role.channel}")
        return ToAnnotate(raw, part.path.with_name(stem), Place.of(part.inspect().spacing))

    def planes(self, field: ToAnnotate) -> dict[str, np.ndarray]:
        """The images `[H, W]` of a field by what to call them: inputs, stain."""
        found = {}
        for role in parse_roles(self.inputs):
            planes = read_role(field.raw, role)
            for number, plane in enumerate(planes):
                found[f"{role.channel} {number}" if len(planes) > 1 else role.channel] = plane
        path = field.found(self.stain) if self.stain else None
        if path is not None:
            found[f"{self.stain} (stain)"] = readers.open_image(path).read()[0]
        return found

    def labels(self, field: ToAnnotate, shape: tuple[int, ...]) -> tuple[np.ndarray, str]:
        """Where drawing begins, int32 `[H, W]`, and from what: unfinished, masks or draft.

        Raises ValueError for labels of another size, and those that are no whole numbers.
        """
        for channel in (UNFINISHED, MASKS, self.draft):
            path = field.found(channel) if channel else None
            if path is None:
                continue
            pixels = readers.open_image(path).read()[0]
            if pixels.shape != shape:
                raise ValueError(
                    f"{path}: is {pixels.shape[0]} × {pixels.shape[1]} pixels, the image "
                    f"{shape[0]} × {shape[1]}; draw on this image"
                )
            labels = pixels.astype(np.int32)
            if not np.array_equal(labels, pixels) or labels.min() < 0:
                raise ValueError(f"{path}: expected whole numbers, 0 for background")
            return labels, channel
        return np.zeros(shape, np.int32), "nothing yet"

    def keep(self, field: ToAnnotate, labels: np.ndarray) -> Path:
        """Write labels that are not finished, whole or not at all."""
        with locked(self.folder, "wait"):
            return _write(field.file(UNFINISHED), labels)

    def finish(self, field: ToAnnotate, labels: np.ndarray) -> Path:
        """Write the masks of a field that is done; ValueError for no object."""
        if not np.setdiff1d(labels, [0, IGNORE]).size:
            raise ValueError(
                f"{field.name}: no object is drawn; draw some, or choose another field"
            )
        there = field.found(MASKS)
        if there is not None and there != field.file(MASKS):
            raise ValueError(f"{there}: holds its masks; save these as {field.file(MASKS).name}")
        with locked(self.folder, "wait"):
            path = _write(field.file(MASKS), labels)
            field.file(UNFINISHED).unlink(missing_ok=True)
        return path

    def command(self, out: str) -> CommandLine:
        """What prepares the images with the masks that were drawn."""
        if self.is_suggested:
            given = {"source": self.folder, "ignore": IGNORE, "out": out or "DATA"}
            return command_line("prepare", given)
        given = {"source": self.folder, "layout": "folder", "inputs": self.inputs}
        given |= {"stain": self.stain or None, "labels": MASKS, "ignore": IGNORE}
        return command_line("prepare", given | {"out": out or "DATA"})


def hand_over(images: tuple[Path, ...], labels: np.ndarray, binning: int) -> Path:
    """Write corrected labels `[H, W]` of image files where the step Annotate goes on from them.

    That is beside the first image, in its pixels: labels of blocks of `binning` pixels squared are
    enlarged. Raises ValueError for images that are in no file, for labels of another size, and
    where something unfinished is there already.
    """
    if not images or not images[0].is_file():
        raise ValueError("the image is in no file, beside which its masks could be kept")
    image = images[0]
    start = image_stem(image).rpartition("_")[0]
    if not start:
        raise ValueError(f"{image}: is not called <field>_<channel>; rename it")
    path = image.with_name(f"{start}_{UNFINISHED}.tif")
    if path.exists():
        raise ValueError(f"{path}: is there already; finish it in step 2 first")
    with locked(image.parent, "wait"):
        return _write(path, _enlarged(image, labels, binning))


def _enlarged(image: Path, labels: np.ndarray, binning: int) -> np.ndarray:
    """Labels in the pixels of an image file; what is beyond the last whole block is as in it."""
    info = readers.inspect(image)
    shape = (info.height, info.width)
    if tuple(side // binning for side in shape) != labels.shape:
        raise ValueError(
            f"{image}: is {shape[0]} × {shape[1]} pixels, which the labels of "
            f"{labels.shape[0]} × {labels.shape[1]} do not fit"
        )
    large = labels.repeat(binning, axis=0).repeat(binning, axis=1)
    rest = [(0, side - found) for side, found in zip(shape, large.shape, strict=True)]
    return np.pad(large, rest, mode="edge")


def _write(path: Path, labels: np.ndarray) -> Path:
    if labels.max(initial=0) > IGNORE:
        raise ValueError(f"{path}: an object has number {labels.max()}, at most {IGNORE - 1} fit")
    write_labels(path, labels)
    return path
