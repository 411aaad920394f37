"""What a TIFF file says about itself: which of its images is meant, its channels and pixels."""

import re
from pathlib import Path
from xml.etree import ElementTree

from tifffile import TiffFile, TiffPageSeries

from isl_jax.ingest.images import damaged, numbered, several_images
from isl_jax.ingest.lengths import spacing_of

_Spacing = tuple[float, float] | None

# Pictures beside the scan in slides, by the names that tifffile and Bio-Formats give them.
_BESIDE = ("label", "macro", "thumbnail", "map", "label image", "macro image", "probability")
# Files that people write themselves, where an image of such a name is one like others.
_PLAIN = ("generic", "uniform", "shaped", "imagej")
_REDUCED, _MASK = 1, 4


def companion_of(path: Path, tiff: TiffFile) -> str | None:
    """The OME-XML that a file keeps in another one beside it, as if it were this file's own.

    None if it needs none. ValueError where it is missing or does not list this file.
    """
    text = tiff.pages.first.description if tiff.is_ome else ""
    if "BinaryOnly" not in text:
        return None
    reference = ElementTree.fromstring(text).find("{*}BinaryOnly")
    name = reference.get("MetadataFile", "") if reference is not None else ""
    _check_beside(path, [name])
    companion = path.parent / name
    if not name or not companion.is_file():
        raise ValueError(
            f"{path}: its metadata are in {name or 'another file'}, which is not beside it; copy "
            "all files"
        )
    try:
        root = ElementTree.parse(companion).getroot()
    except ElementTree.ParseError as error:
        raise damaged(companion, error) from None
    own = [entry for entry in root.iter() if entry.get("FileName") == path.name]
    if not own:
        raise ValueError(f"{path}: is not listed in {name}, which is to hold its metadata")
    root.set("UUID", own[0].text or "")
    return ElementTree.tostring(root, encoding="unicode")


def _check_beside(path: Path, names: list[str]) -> None:
    for name in names:
        if re.search(r"[/\\]", name) or name in (".", ".."):
            raise ValueError(
                f"{path}: its metadata name a file that is not beside it ({name[:80]!r}); save the "
                "image again in its own folder"
            )


def the_series(path: Path, tiff: TiffFile) -> TiffPageSeries:
    """The one image of a file; ValueError that names them if there are several.

    Levels of a pyramid, masks and the small pictures of slides do not count. Files of one
    experiment may each describe all images of it: what is in other files does not count either.
    """
    if tiff.is_ome and tiff.ome_metadata:
        _check_beside(path, re.findall(r'FileName="([^"]+)"', tiff.ome_metadata))
    series = tiff.series
    if not series:
        raise damaged(path, "no image inside")
    own = [s for s in series if any(p is not None and p.parent is tiff for p in s.pages)] or series
    images = [s for s in own if not _is_beside(s)] or own[:1]
    if len(images) > 1:
        raise several_images(path, [_name(s) for s in images])
    return images[0]


def _is_beside(series: TiffPageSeries) -> bool:
    subfile = series.keyframe.subfiletype
    named = series.kind not in _PLAIN and series.name.casefold() in _BESIDE
    # 'label' is a fine name for an image of one's own, in OME as in plain files.
    named &= series.kind != "ome" or series.name.casefold().endswith(" image")
    return named or bool(subfile & (_REDUCED | _MASK))


def _name(series: TiffPageSeries) -> str:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return series.name or f"{sizes.get('Y')}×{sizes.get('X')} pixels"


def siblings_of(path: Path, tiff: TiffFile, series: TiffPageSeries) -> tuple[Path, ...]:
    """Other files that hold pages of an image; ValueError if one that is named there is gone."""
    if None in series.pages:
        described = dict.fromkeys(re.findall(r'FileName="([^"]+)"', tiff.ome_metadata or ""))
        gone = [name for name in described if not (path.parent / name).exists()]
        reason = f"{gone[0]} is not beside it" if gone else "planes are missing"
        what = "an image in several files" if described else f"{len(series.pages)} planes"
        raise ValueError(f"{path}: its metadata describe {what}, but {reason}; copy all files")
    parents = [page.parent for page in series.pages if page is not None]
    names = dict.fromkeys(parent.filename for parent in parents if parent is not tiff)
    return tuple(path.parent / name for name in names)


def metadata_of(
    tiff: TiffFile, series: TiffPageSeries, num_channels: int
) -> tuple[tuple[str, ...], _Spacing]:
    """Channel names (numbers where the file has none) and the sides (y, x) of a pixel in µm."""
    numbers = numbered(num_channels)
    if tiff.is_ome and tiff.ome_metadata:
        return _ome_metadata(tiff.ome_metadata, numbers, tiff.series.index(series))
    if tiff.is_imagej and tiff.imagej_metadata:
        unit = tiff.imagej_metadata.get("unit", "")
        y, x = (_side(tiff, f"{axis}Resolution") for axis in "YX")
        return numbers, spacing_of(y, x, tiff.imagej_metadata.get("yunit", unit), unit)
    return numbers, None


def _side(tiff: TiffFile, name: str) -> float | None:
    """Length of a pixel in the file's unit, from pixels a unit; 0 where that is no number."""
    tag = tiff.pages.first.tags.get(name)
    if tag is None:
        return None
    try:
        pixels, units = tag.value
        return units / pixels
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0


def _ome_metadata(
    xml: str, numbers: tuple[str, ...], index: int
) -> tuple[tuple[str, ...], _Spacing]:
    """Names and pixel size of image number `index` of OME-XML."""
    images = ElementTree.fromstring(xml).findall("{*}Image/{*}Pixels")
    if not images:
        return numbers, None
    pixels = images[min(index, len(images) - 1)]
    names = [channel.get("Name") for channel in pixels.findall("{*}Channel")]
    if len(names) != len(numbers) or not all(names):
        names = list(numbers)
    y, x = (pixels.get(f"PhysicalSize{axis}") for axis in "YX")
    unit_y, unit_x = (pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "YX")
    return tuple(map(str, names)), spacing_of(y, x, unit_y, unit_x)
