"""Other labels from maps that were written before: all of a prediction but the network."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isl_jax.inference.folder import read_record
from isl_jax.inference.info import ModelInfo
from isl_jax.inference.large import OpenedImage, Scratch
from isl_jax.inference.opening import Source, read_maps


@dataclass(frozen=True)
class MapSource:
    """The maps of one image, in the network's order, and the image itself if it is at hand."""

    name: str
    maps: tuple[Path, ...]
    image: Source | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that the labels depend on."""
        return (*self.maps, *(self.image.paths if self.image else ()))

    @property
    def origins(self) -> tuple[Path, ...]:
        """Those, and the files that the maps were predicted from."""
        record = read_record(self.maps[0].parent, self.name)
        return (*self.paths, *(sorted(record.paths) if record else ()))

    def open(self, scratch: Scratch, *, binning: int = 1) -> OpenedImage:
        """Read the maps, and open the image as `Source.open` does."""
        maps, spacing = read_maps(self.maps, scratch)
        if self.image is None:
            return OpenedImage(self.name, None, self.paths, spacing, binning, maps)
        image = self.image.open(scratch, binning=binning)
        if image.planes is not None and image.planes.shape[1:] != maps.shape[1:]:
            raise ValueError(
                f"{self.maps[0]}: is {maps.shape[1]}×{maps.shape[2]} pixels, the image "
                f"{image.planes.shape[1]}×{image.planes.shape[2]}; give the --bin of the maps"
            )
        return dataclasses.replace(image, paths=self.paths, maps=maps)


def find_maps(folder: Path, info: ModelInfo, images: Sequence[Source] = ()) -> list[MapSource]:
    """Maps in a folder of predictions: those of `images`, or all when there are none.

    Raises ValueError for a model without such maps, FileNotFoundError for maps that are not there.
    """
    if info.task.is_stain:
        raise ValueError("--from_maps: this model predicts a stain, there is nothing to label")
    kinds = info.task.map_names
    by_name = {image.name: image for image in images}
    suffix = f"_{kinds[-1]}.tif"
    names = list(by_name) or [
        path.name.removesuffix(suffix) for path in sorted(folder.glob(f"*{suffix}"))
    ]
    found = [
        MapSource(name, tuple(folder / f"{name}_{kind}.tif" for kind in kinds), by_name.get(name))
        for name in names
    ]
    missing = [path for source in found for path in source.maps if not path.exists()]
    if missing or not found:
        what = missing[0] if missing else f"{folder}/*{suffix}"
        raise FileNotFoundError(f"{what}: no such file; predict with --outputs=labels,maps first")
    return found
