"""A pickle run on stand-ins: numbers, text, tuples, lists and tables, and what the caller makes.

Python's own unpickler hashes keys of any depth, follows state into any object and believes every
length. This stack machine knows no objects at all: a name stays a name, a call is answered by the
caller, and keys are numbers or text.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple


class Global(NamedTuple):
    """The name of something in a module, which is not looked up."""

    module: str
    name: str


class Table(dict[Any, Any]):
    """A dictionary; whatever else a pickle sets on it is passed over."""


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, type] = {"EMPTY_DICT": Table, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}


def run_pickle(
    file: BinaryIO,
    *,
    called: Callable[[Global, tuple[Any, ...]], Any],
    referred: Callable[[Any], Any],
) -> Any:
    """The value of the pickle at the file's position, which is then behind it.

    `called` answers the call of a name, `referred` a persistent id. Whatever a damaged pickle makes
    this raise is an Exception; most are ValueError.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in ("PROTO", "FRAME"):
            continue
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "GLOBAL":
            stack.append(Global(*str(argument).split(" ", 1)))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "BINPERSID":
            stack.append(referred(stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            if not isinstance(function, Global) or not isinstance(arguments, tuple):
                raise ValueError("it calls what is no name")
            stack.append(called(function, arguments))
        else:
            _step(name, stack)
    raise ValueError("it ends too early")


def _step(name: str, stack: list[Any]) -> None:
    """One opcode that makes or fills tuples, lists and tables of what is on the stack."""
    if name in _TUPLES:
        count = _TUPLES[name]
        stack[-count:] = [tuple(stack[-count:])]
    elif name == "TUPLE":
        stack.append(tuple(_to_mark(stack)))
    elif name == "LIST":
        stack.append(_to_mark(stack))
    elif name == "DICT":
        stack.append(set_items(Table(), _to_mark(stack)))
    elif name in ("APPEND", "APPENDS"):
        values = _to_mark(stack) if name == "APPENDS" else [stack.pop()]
        if not isinstance(stack[-1], list):
            raise ValueError("it appends to what is no list")
        stack[-1].extend(values)
    elif name in ("SETITEM", "SETITEMS"):
        values = _to_mark(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
        set_items(stack[-1], values)
    elif name == "STACK_GLOBAL":
        module, attribute = stack.pop(-2), stack.pop()
        stack.append(Global(str(module)[:200], str(attribute)[:200]))
    elif name == "BUILD" and isinstance(stack[-2], Table):
        stack.pop()  # `_metadata` of a state dict
    else:
        raise ValueError(f"it uses {name}, which no weights need")


def _to_mark(stack: list[Any]) -> list[Any]:
    """The values above the topmost mark, which are taken away with it."""
    at = next((k for k in reversed(range(len(stack))) if stack[k] is _MARK), None)
    if at is None:
        raise ValueError("a mark is missing")
    values = stack[at + 1 :]
    del stack[at:]
    return values


def set_items(table: Any, pairs: list[Any]) -> Table:
    """Put keys and values, in turns, into a table; ValueError for what cannot be a key."""
    if not isinstance(table, Table) or len(pairs) % 2:
        raise ValueError("it sets items of what is no table")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if type(key) not in (str, int, float, bytes):
            raise ValueError(f"a {type(key).__name__} as a key")
        table[key] = value
    return table
