"""Opera Phenix exports: fields, channels and planes from the file list that Harmony writes."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from isl_jax.ingest.fields import Part
from isl_jax.ingest.images import damaged
from isl_jax.ingest.layouts import OPERA_INDEX, Layout

# field → channel → (plane number, part)
Found = dict[str, dict[str, list[tuple[int, Part]]]]


def match_opera(
    source: Path, layout: Layout, images: Sequence[Path], is_kept: Callable[[str], bool]
) -> tuple[Found, list[Path]]:
    """Fields whose name is kept, and the images that are part of none, excluded ones apart.

    Channels answer to their name (DAPI) and to their number (ch4). Labels come from files called
    `<field>_<label>`.
    """
    indices = sorted(source.rglob(OPERA_INDEX))
    if not indices:
        raise FileNotFoundError(f"{source}: holds no {OPERA_INDEX}; give the export's folder")
    found: Found = defaultdict(lambda: defaultdict(list))
    seen = set()
    for index in indices:
        prefix = "" if len(indices) == 1 else index.parent.relative_to(source).as_posix() + "/"
        try:
            for image in ElementTree.parse(index).findall("{*}Images/{*}Image"):
                value = {child.tag.rpartition("}")[2]: child.text or "" for child in image}
                field = (prefix + _name(value)).replace("/", "_")
                path = index.parent / _beside(value["URL"])
                seen.add(path)
                for channel in {value.get("ChannelName", ""), f"ch{value['ChannelID']}"}:
                    if channel in layout.channels() and is_kept(field):
                        found[field][channel].append((int(value["PlaneID"]), Part(path)))
        except (ElementTree.ParseError, KeyError, ValueError) as error:
            raise damaged(index, error) from None
    unmatched = []
    for path in sorted(set(images) - seen):
        name, _, channel = path.stem.rpartition("_")
        if name in found and channel in layout.labels:
            found[name][channel].append((0, Part(path)))
        elif is_kept(name):
            unmatched.append(path)
    return found, unmatched


def _name(value: dict[str, str]) -> str:
    numbers = (int(value[key]) for key in ("Row", "Col", "FieldID"))
    name = "r{:02d}c{:02d}f{:02d}".format(*numbers)
    time = int(value.get("TimepointID", 0))
    return f"{name}t{time:02d}" if time else name


def _beside(url: str) -> str:
    if url in ("", ".", "..") or "/" in url or "\\" in url:
        raise ValueError(f"the image {url[:80]!r} is not beside it")
    return url
