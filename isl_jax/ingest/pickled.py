"""Arrays in pickles, as Cellpose saves its masks: read without running what the file contains."""

import io
import math
import pickletools
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

_DTYPE = re.compile(r"[<>=|]?(?:[biufc]\d{1,2}|\?|[OSUV]\d{0,9})")


class NotHarmlessError(ValueError):
    """A pickle refers to something that is neither an array, a number nor text."""


class _Dtype:
    """What a pickle says about a dtype; numpy's own is made from what was checked."""

    def __init__(self, code: str):
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise NotHarmlessError(f"it holds values of type {str(code)[:40]!r}")
        self.code, self.order = code, "="

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("a damaged dtype")
        self.order = state[1]

    @property
    def is_object(self) -> bool:
        return "O" in self.code

    def dtype(self) -> np.dtype:
        dtype = np.dtype(self.code)
        return dtype if self.order in "|=" else np.dtype(self.order + dtype.str[1:])


class PickledArray:
    """What a pickle says about an array, checked before memory is touched."""

    shape: tuple[int, ...] = (0,)
    kind: _Dtype
    data: Any = ()
    order = "C"

    def build(self, state: Any) -> None:
        """Take the state that numpy pickles."""
        _, shape, kind, is_fortran, data = state
        self.fill(data, kind, shape, "F" if is_fortran else "C")

    def fill(self, data: Any, kind: Any, shape: Any, order: Any = "C") -> "PickledArray":
        """Take data, dtype, shape and order; ValueError unless they fit together."""
        if not isinstance(kind, _Dtype) or not isinstance(shape, tuple) or len(shape) > 8:
            raise ValueError("a damaged array")
        if not all(type(side) is int and 0 <= side < 1 << 40 for side in shape):
            raise ValueError(f"an array of shape {str(shape)[:60]}")
        size = math.prod(shape) if kind.is_object else math.prod(shape) * kind.dtype().itemsize
        if not isinstance(data, list if kind.is_object else bytes | bytearray) or len(data) != size:
            raise ValueError(f"an array of shape {shape} with {_length(data)} values or bytes")
        self.shape, self.kind, self.data = shape, kind, data
        self.order = "F" if order == "F" else "C"
        return self

    def array(self) -> np.ndarray:
        """The array itself; ValueError if it holds no numbers."""
        if self.kind.is_object:
            raise ValueError("its masks are objects")
        flat = np.frombuffer(self.data, self.kind.dtype())
        return flat.reshape(self.shape, order="F" if self.order == "F" else "C")


def _length(data: Any) -> int | str:
    return len(data) if isinstance(data, list | bytes | bytearray | str) else type(data).__name__


def _makers() -> dict[tuple[str, str], Callable[..., Any]]:
    """All that a dictionary of arrays, numbers and text refers to; nothing here acts."""
    makers: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): lambda *_: PickledArray(),
        ("numpy", "dtype"): lambda code, *_: _Dtype(code),
        ("collections", "OrderedDict"): lambda *_: {},
    }
    for package in ("numpy.core", "numpy._core"):
        makers[f"{package}.multiarray", "_reconstruct"] = lambda *_: PickledArray()
        makers[f"{package}.multiarray", "scalar"] = lambda *_: None
        makers[f"{package}.numeric", "_frombuffer"] = lambda data, kind, shape, order: (
            PickledArray().fill(data, kind, shape, order)
        )
    return makers


_MAKERS = _makers()
_MARK = object()
_LITERALS = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False,
}  # fmt: skip
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def load_arrays(file: BinaryIO) -> Any:
    """The value of a pickle that holds dictionaries, lists, arrays, numbers and text, no more.

    Arrays come as stand-ins. This is a stack machine of its own: Python's would hash keys of any
    depth and let a file set the state of numpy's types.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    content = io.BytesIO(file.read())  # reads of a forged length end with the file
    argument: Any
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in ("PROTO", "FRAME"):
            continue
        if name in _LITERALS:
            stack.append(_LITERALS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif isinstance(argument, int | float | str | bytes | bytearray) and name != "GLOBAL":
            if name in ("PERSID", "INST", "EXT1", "EXT2", "EXT4"):
                raise NotHarmlessError(f"it refers to {argument}, which is not an array")
            stack.append(argument)
        else:
            _step(name, argument, stack)
    raise ValueError("it ends too early")


def _step(name: str, argument: Any, stack: list[Any]) -> None:
    """One opcode that takes values from the stack."""
    if name in _TUPLES:
        values = tuple(stack[-_TUPLES[name] :])
        del stack[-_TUPLES[name] :]
        stack.append(values)
    elif name in ("TUPLE", "LIST", "DICT"):
        values = _to_mark(stack)
        stack.append(
            {"TUPLE": tuple, "LIST": list}[name](values) if name != "DICT" else _set({}, values)
        )
    elif name in ("APPEND", "APPENDS"):
        values = _to_mark(stack) if name == "APPENDS" else [stack.pop()]
        _as(list, stack[-1]).extend(values)
    elif name in ("SETITEM", "SETITEMS"):
        values = _to_mark(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
        _set(_as(dict, stack[-1]), values)
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        module, attribute = (
            argument.split(" ", 1) if name == "GLOBAL" else (stack.pop(-2), stack.pop())
        )
        if (module, attribute) not in _MAKERS:
            raise NotHarmlessError(f"it refers to {module}.{attribute}, which is not an array")
        stack.append(_MAKERS[module, attribute])
    elif name in ("REDUCE", "NEWOBJ"):
        arguments = stack.pop()
        maker = stack.pop()
        if maker not in _MAKERS.values():
            raise ValueError("it calls what is no maker of arrays")
        stack.append(maker(*_as(tuple, arguments)))
    elif name == "BUILD":
        state = stack.pop()
        if not isinstance(stack[-1], PickledArray | _Dtype):
            raise ValueError("it sets the state of what is no array")
        stack[-1].build(state)
    else:
        raise NotHarmlessError(f"it uses {name}, which no array needs")


def _to_mark(stack: list[Any]) -> list[Any]:
    """The values above the topmost mark, which are taken away with it."""
    at = next(k for k in reversed(range(len(stack))) if stack[k] is _MARK)
    values = stack[at + 1 :]
    del stack[at:]
    return values


def _as(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} stands where a {kind.__name__} is expected")
    return value


def _set(target: dict, pairs: list[Any]) -> dict:
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(key, str | int | float | bytes):
            raise ValueError(f"a {type(key).__name__} as a key")
        target[key] = value
    return target
