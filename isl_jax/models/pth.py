"""Read PyTorch's `.pth` state dicts, legacy and zip format, without torch and without executing.

A pickle can name any function to call. This reader knows three harmless ones (an ordered dict, a
tensor, a parameter) and refuses every other, as torch's `weights_only=True` does.
"""

import dataclasses
import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

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


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    numbers = (offset, *shape, *strides)
    if (
        not isinstance(storage, _Storage)
        or len(shape) != len(strides)
        or not all(isinstance(number, int) and number >= 0 for number in numbers)
    ):
        raise pickle.UnpicklingError("malformed tensor")
    # A tensor must lie inside its storage: strides come from the file and would read past it.
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= storage.count:
        raise pickle.UnpicklingError("tensor reaches beyond its storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


_CALLABLES: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _StateDictUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return np.dtype(_DTYPES[name])
        if (module, name) not in _CALLABLES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _CALLABLES[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or not isinstance(count, int):
            raise pickle.UnpicklingError("malformed storage")
        return self.storages.setdefault(str(key), _Storage(dtype, str(key), count))


def read_pth(path: str | Path) -> dict[str, np.ndarray]:
    """Name → array of every tensor of a state dict, also one wrapped as `{"state_dict": …}`.

    Raises ValueError for a file that is damaged, holds no state dict, or whose pickle asks for
    anything but tensors.
    """
    path = Path(path)
    try:
        read = _read_zip if zipfile.is_zipfile(path) else _read_legacy
        tree, storages = read(path)
        return _arrays(tree, storages)
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        # What a damaged or hostile pickle makes the unpickler itself raise.
        *(AttributeError, EOFError, IndexError, KeyError, TypeError, ValueError, MemoryError),
    ) as error:
        raise ValueError(
            f"{path}: not a plain PyTorch state dict ({error}); save it again with "
            "torch.save(model.state_dict(), …) or as safetensors"
        ) from error


def _read_zip(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(names) != 1:
            raise pickle.UnpicklingError("no data.pkl")
        folder = names[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            order = archive.read(f"{folder}byteorder").decode()
            if order != "little":
                raise pickle.UnpicklingError(f"byte order {order}, expected little")
        unpickler = _StateDictUnpickler(io.BytesIO(archive.read(names[0])))
        tree = unpickler.load()
        storages = {
            key: np.frombuffer(archive.read(f"{folder}data/{key}"), storage.dtype)
            for key, storage in unpickler.storages.items()
        }
    return tree, storages


def _read_legacy(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    with path.open("rb") as file:
        if _load(file) != _LEGACY_MAGIC:
            raise pickle.UnpicklingError("neither zip nor legacy format")
        _load(file)  # protocol version
        if not _load(file).get("little_endian", True):
            raise pickle.UnpicklingError("byte order big, expected little")
        unpickler = _StateDictUnpickler(file)
        tree = unpickler.load()
        storages = {}
        for key in _load(file):
            storage = unpickler.storages[key]
            # Each storage is its number of elements (int64), then the elements.
            count = int.from_bytes(file.read(8), "little")
            if count != storage.count:
                raise pickle.UnpicklingError(f"storage of {count}, expected {storage.count}")
            storages[key] = np.frombuffer(file.read(count * storage.dtype.itemsize), storage.dtype)
    return tree, storages


def _load(file: BinaryIO) -> Any:
    return _StateDictUnpickler(file).load()


def _arrays(tree: Any, storages: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    for wrapper in _WRAPPERS:
        if isinstance(tree, dict) and isinstance(tree.get(wrapper), dict):
            tree = tree[wrapper]
    tensors = tree if isinstance(tree, dict) else {}
    tensors = {str(name): value for name, value in tensors.items() if isinstance(value, _Tensor)}
    if not tensors:
        raise pickle.UnpicklingError("no tensors by name")
    return {name: _array(tensor, storages) for name, tensor in tensors.items()}


def _array(tensor: _Tensor, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    data = storages[tensor.storage.key]
    if data.size != tensor.storage.count:
        raise pickle.UnpicklingError(f"storage cut short at {data.size} of {tensor.storage.count}")
    strides = [step * data.itemsize for step in tensor.strides]
    view = np.lib.stride_tricks.as_strided(data[tensor.offset :], tensor.shape, strides)
    return view.copy()
