"""Read PyTorch's `.pth` state dicts, legacy and zip format, without torch and without executing.

A pickle can name any function to call, and set the state of any object. `pickling.py` runs it on
stand-ins; this module knows three harmless names (an ordered dict, a tensor, a parameter), refuses
every other, as torch's `weights_only=True` does, and holds all sizes against the file's own.
"""

import dataclasses
import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from isl_jax.models.pickling import Global, Table, run_pickle, set_items

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
# Names under which training scripts keep the weights beside other things.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_MOST_AXES = 8


@dataclasses.dataclass(frozen=True)
class _Storage:
    dtype: np.dtype
    key: str
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _called(name: Global, arguments: tuple[Any, ...]) -> Any:
    """What a call in the pickle makes; ValueError for one that makes no tensor."""
    if name == ("collections", "OrderedDict") and len(arguments) <= 1:
        # Python 2 wrote the items as the argument, [[key, value], …].
        pairs = [tuple(pair) for pair in arguments[0]] if arguments else []
        return set_items(Table(), [part for pair in pairs for part in pair])
    if name == ("torch._utils", "_rebuild_tensor_v2") and len(arguments) >= 4:
        return _tensor(*arguments[:4])
    if name == ("torch._utils", "_rebuild_parameter") and arguments:
        return arguments[0]
    raise ValueError(f"it asks for {name.module}.{name.name}")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
    if not (isinstance(storage, _Storage) and type(shape) is type(strides) is tuple):
        raise ValueError("malformed tensor")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > _MOST_AXES or not all(map(_is_count, numbers)):
        raise ValueError("malformed tensor")
    # A tensor must lie inside its storage: strides come from the file and would read past it. Nor
    # may it hold more values than that: strides of 0 make gigabytes of a byte.
    size = math.prod(shape)
    last = offset + sum((side - 1) * step for side, step in zip(shape, strides, strict=True))
    if size and (last >= storage.count or size > storage.count):
        raise ValueError("tensor reaches beyond its storage")
    return _Tensor(storage, offset, shape, strides)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


class _Storages(dict[str, _Storage]):
    """The storages that a pickle refers to, which all together are no larger than the file."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self._left = most_bytes

    def refer(self, reference: Any) -> _Storage:
        """The storage of a persistent id: ('storage', type, key, device, count, …)."""
        if not isinstance(reference, tuple) or len(reference) < 5:
            raise ValueError("malformed storage")
        kind, name, key, _, count = reference[:5]
        is_torch = isinstance(name, Global) and name.module == "torch"
        dtype = _DTYPES.get(name.name) if is_torch else None
        is_key = isinstance(key, str) and len(key) < 100
        if kind != "storage" or dtype is None or not is_key or not _is_count(count):
            raise ValueError("malformed storage")
        storage = _Storage(np.dtype(dtype), key, count)
        if self.setdefault(key, storage) is storage:
            self._left -= count * storage.dtype.itemsize
        if self[key] != storage or self._left < 0:
            raise ValueError("storages of more bytes than the file has")
        return storage

    def run(self, file: BinaryIO) -> Any:
        """The value of the pickle at the file's position."""
        return run_pickle(file, called=_called, referred=self.refer)


def read_pth(path: str | Path) -> dict[str, np.ndarray]:
    """Name → array of every tensor of a state dict, also one wrapped as `{"state_dict": …}`.

    Raises ValueError for a file that is damaged, holds no state dict, or whose pickle asks for
    anything but tensors.
    """
    path = Path(path)
    storages = _Storages(path.stat().st_size)
    try:
        read = _read_zip if zipfile.is_zipfile(path) else _read_legacy
        tree, contents = read(path, storages)
        return _arrays(tree, contents)
    except Exception as error:  # whatever a damaged or hostile file makes the parsers raise
        raise ValueError(
            f"{path}: not a plain PyTorch state dict ({_told(error)}); save it again with "
            "torch.save(model.state_dict(), …) or as safetensors"
        ) from error


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read_zip(path: Path, storages: _Storages) -> tuple[Any, dict[str, np.ndarray]]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(names) != 1:
            raise ValueError("no data.pkl")
        folder = names[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            order = _member(archive, f"{folder}byteorder", 6).decode()
            if order != "little":
                raise ValueError(f"byte order {order}, expected little")
        size = archive.getinfo(names[0]).file_size
        tree = storages.run(io.BytesIO(_member(archive, names[0], size)))
        contents = {}
        for key, storage in storages.items():
            content = _member(
                archive, f"{folder}data/{key}", storage.count * storage.dtype.itemsize
            )
            contents[key] = np.frombuffer(content, storage.dtype)
    return tree, contents


def _member(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    info = archive.getinfo(name)
    # PyTorch stores without compressing; what is compressed could expand to anything.
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != size:
        raise ValueError(f"{name} has {info.file_size} bytes, expected {size}, not compressed")
    return archive.read(info)


def _read_legacy(path: Path, storages: _Storages) -> tuple[Any, dict[str, np.ndarray]]:
    with io.BytesIO(path.read_bytes()) as file:  # a forged length reads no further
        if storages.run(file) != _LEGACY_MAGIC:
            raise ValueError("neither zip nor legacy format")
        storages.run(file)  # protocol version
        system = storages.run(file)
        if not isinstance(system, dict) or not system.get("little_endian", True):
            raise ValueError("byte order big, expected little")
        tree, contents = storages.run(file), {}
        for key in storages.run(file):
            storage = storages[key]
            # Each storage is its number of elements (int64), then the elements.
            count = int.from_bytes(file.read(8), "little")
            if count != storage.count:
                raise ValueError(f"storage of {count}, expected {storage.count}")
            content = file.read(count * storage.dtype.itemsize)
            if len(content) < count * storage.dtype.itemsize:
                raise ValueError(f"storage cut short at {len(content)} bytes")
            contents[key] = np.frombuffer(content, storage.dtype)
    return tree, contents


def _arrays(tree: Any, contents: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    for wrapper in _WRAPPERS:
        if isinstance(tree, dict) and isinstance(tree.get(wrapper), dict):
            tree = tree[wrapper]
    tensors = tree if isinstance(tree, dict) else {}
    tensors = {str(name): value for name, value in tensors.items() if isinstance(value, _Tensor)}
    if not tensors:
        raise ValueError("no tensors by name")
    made: dict[_Tensor, np.ndarray] = {}  # tied weights are one array under several names
    left = 2 * sum(content.nbytes for content in contents.values())
    for tensor in tensors.values():
        if tensor not in made:
            left -= math.prod(tensor.shape) * tensor.storage.dtype.itemsize
            if left < 0:
                raise ValueError("tensors of more bytes than the file has")
            made[tensor] = _array(tensor, contents[tensor.storage.key])
    return {name: made[tensor] for name, tensor in tensors.items()}


def _array(tensor: _Tensor, content: np.ndarray) -> np.ndarray:
    strides = [step * content.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(content[tensor.offset :], tensor.shape, strides).copy()
