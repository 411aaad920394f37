"""An OME-Zarr image (version 0.4) with the labels inside, in chunks and at several sizes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isl_jax.files import written_whole
from isl_jax.inference.large import ImageLike, release

_CHUNK = 1024
# The smallest size is one that a viewer shows at once.
_SMALLEST = 1024


def write_zarr(
    path: Path,
    labels: np.ndarray,
    planes: ImageLike,
    channels: Sequence[str],
    *,
    name: str,
    spacing: tuple[float, float] | None = None,
    binning: int = 1,
) -> None:
    """Write the raw `planes` `[C, H, W]` and, below `labels/<name>`, the labels `[H, W]`.

    Each size is half of the one before: images averaged, of labels every second pixel. `spacing`
    of the pixels in µm, (y, x); where it is not known, scales are in pixels of the input file, of
    which a pixel here is `binning` squared.
    """
    # A channel that is repeated is written once.
    used = {channel: index for index, channel in reversed(list(enumerate(channels)))}
    used = dict(sorted(used.items(), key=lambda item: item[1]))
    image = _Chosen(planes, tuple(used.values()))
    with written_whole(path) as draft:
        draft.mkdir(parents=True)
        smallest, limits = _pyramid(draft, image, average=True)
        shown = [_channel(*one) for one in zip(used, smallest, limits, strict=True)]
        scale = spacing or (float(binning), float(binning))
        unit = "micrometer" if spacing else None
        described = _multiscales(image.shape, "cyx", path.stem, scale, unit)
        _group(draft, described | {"omero": {"version": "0.4", "channels": shown}})
        _group(draft / "labels", {"labels": [name]})
        inside = draft / "labels" / name
        inside.mkdir()
        _pyramid(inside, labels, average=False)
        described = _multiscales(labels.shape, "yx", name, scale, unit)
        source = {"version": "0.4", "source": {"image": "../../"}}
        _group(inside, described | {"image-label": source})


class _Chosen:
    """Some of the planes of an image."""

    def __init__(self, planes: ImageLike, indices: tuple[int, ...]) -> None:
        self.plane = planes  # named as `release` expects it
        self._indices = indices
        self.shape = (len(indices), *planes.shape[1:])
        first = planes[slice(0, 1), slice(0, 1), slice(0, 1)]
        self.dtype = np.asarray(first).dtype

    def __getitem__(self, key: tuple[slice, slice, slice]) -> np.ndarray:
        pixels = np.asarray(self.plane[slice(None), key[1], key[2]])
        return pixels[list(self._indices)]


def _pyramid(folder: Path, image: Any, *, average: bool) -> tuple[np.ndarray, np.ndarray]:
    """Write all sizes; returns the smallest one, and the lowest and highest value `[..., 2]`."""
    source, lows, highs = image, [], []
    for level in range(_num_levels(image.shape)):
        step = 1 if level == 0 else 2
        shape = tuple(-(-size // step) for size in source.shape[-2:])
        target = _create(folder / str(level), (*image.shape[:-2], *shape), np.dtype(image.dtype))
        for top in range(0, shape[0], _CHUNK):
            rows = slice(top * step, min((top + _CHUNK) * step, source.shape[-2]))
            key = (slice(None),) * (len(image.shape) - 2) + (rows, slice(None))
            band = np.asarray(source[key])
            release(source)
            if level == 0:
                lows.append(band.min(axis=(-2, -1)))
                highs.append(band.max(axis=(-2, -1)))
            if step == 2:
                band = _halved(band) if average else band[..., ::2, ::2]
            target[..., top : top + band.shape[-2], :].write(band).result()
        source = _Reader(target)
    limits = np.stack([np.min(lows, axis=0), np.max(highs, axis=0)], axis=-1)
    return np.asarray(source[(slice(None),) * len(image.shape)]), limits


class _Reader:
    """A written level, to make the next one of."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape = array.shape

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        return self._array[key].read().result()


def _halved(image: np.ndarray) -> np.ndarray:
    pad = [(0, 0)] * (image.ndim - 2) + [(0, size % 2) for size in image.shape[-2:]]
    whole = np.pad(image, pad, mode="edge").astype(np.float32)
    mean = (
        whole[..., ::2, ::2]
        + whole[..., 1::2, ::2]
        + whole[..., ::2, 1::2]
        + whole[..., 1::2, 1::2]
    ) / 4
    return (np.rint(mean) if image.dtype.kind in "iu" else mean).astype(image.dtype)


def _create(folder: Path, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    import tensorstore  # costs a quarter of a second, and few need it

    chunks = [*[1] * (len(shape) - 2), *(min(_CHUNK, size) for size in shape[-2:])]
    return tensorstore.open(
        {
            "driver": "zarr",
            # No `..` in it: the library takes none.
            "kvstore": {"driver": "file", "path": f"{folder.resolve()}/"},
            "metadata": {
                "shape": list(shape),
                "chunks": chunks,
                "dtype": dtype.str,
                "dimension_separator": "/",
                "compressor": {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 1},
            },
            "create": True,
        }
    ).result()


def _num_levels(shape: tuple[int, ...]) -> int:
    return max(1, (max(shape[-2:]) - 1).bit_length() - (_SMALLEST - 1).bit_length() + 1)


def _multiscales(
    shape: tuple[int, ...], axes: str, name: str, scale: tuple[float, float], unit: str | None
) -> dict[str, Any]:
    scales = [
        [1.0] * (len(axes) - 2) + [side * 2**level for side in scale]
        for level in range(_num_levels(shape))
    ]
    return {
        "multiscales": [
            {
                "version": "0.4",
                "name": name,
                "axes": [
                    {"name": "c", "type": "channel"}
                    if axis == "c"
                    else {"name": axis, "type": "space"} | ({"unit": unit} if unit else {})
                    for axis in axes
                ],
                "datasets": [
                    {
                        "path": str(level),
                        "coordinateTransformations": [{"type": "scale", "scale": scale}],
                    }
                    for level, scale in enumerate(scales)
                ],
            }
        ]
    }


def _channel(label: str, plane: np.ndarray, limits: np.ndarray) -> dict[str, Any]:
    """A channel as viewers show it at first: grey, from percentile 0.5 to 99.5 of `plane`."""
    if plane.dtype.kind in "iu":
        whole = np.iinfo(plane.dtype)
        limits = np.array([whole.min, whole.max])
    low, high = np.percentile(plane, [0.5, 99.5])
    window = {"min": limits[0], "max": limits[1], "start": low, "end": high}
    window = {name: float(value) for name, value in window.items()}
    return {"label": label, "color": "FFFFFF", "active": True, "window": window}


def _group(folder: Path, attributes: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}\n')
    (folder / ".zattrs").write_text(json.dumps(attributes, indent=1) + "\n")
