"""What a compiled program does, read from its text: kernels, bytes, sums over devices."""

import dataclasses
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2}
_BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) (?:\(.*)?\{\s*$")
# What costs nothing on a device, or is the second half of what has been counted.
_FREE = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all"}
_FREE |= {"opt-barrier", "all-reduce-done", "copy-done", "async-done"}
_SLICES = {"slice", "dynamic-slice", "gather"}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program: `name = shape operation(operands), attributes`."""

    name: str
    shape: str
    operation: str
    operands: tuple[str, ...]
    attributes: str

    @property
    def size(self) -> int:
        """Bytes of the result."""
        return sum(
            _BYTES.get(dtype, 0) * math.prod(int(n) for n in sides.split(",") if n)
            for dtype, sides in _ARRAY.findall(self.shape)
        )

    @property
    def kind(self) -> str:
        """What makes the result: an operation, a kind of fusion, or the library that is called."""
        found = re.search(r'custom_call_target="([^"]+)"', self.attributes)
        if found:
            return found[1]
        if self.operation == "fusion":
            triton = re.search(r'"kind":"(__\w+)"', self.attributes)
            loop = re.search(r"kind=k(\w+)", self.attributes)
            return "fusion " + (triton[1] if triton else loop[1].lower() if loop else "")
        return self.operation

    @property
    def body(self) -> str | None:
        """The computation that a fusion consists of."""
        found = re.search(r"calls=%?([\w.-]+)", self.attributes)
        return found[1] if found else None


class Program:
    """An optimised program: what its main computation runs, one after the other."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._computations: dict[str, list[Instruction]] = {}
        self._main: list[Instruction] = []
        current: list[Instruction] | None = None
        for line in text.splitlines():
            if current is None:
                found = _COMPUTATION.match(line)
                if found and not line.startswith("HloModule"):
                    current = self._computations[found[2]] = []
                    if found[1]:
                        self._main = current
            elif line.startswith("}"):
                current = None
            elif found := _INSTRUCTION.match(line):
                name, shape, operation, rest = found.groups()
                inside, attributes = _split(rest)
                operands = tuple(re.findall(r"%([\w.-]+)", inside))
                current.append(Instruction(name, shape, operation, operands, attributes))

    def kernels(self) -> Iterator[tuple[Instruction, float]]:
        """What a device runs, each with the bytes that it reads and writes.

        Of an operand that a fusion needs slices of alone, these count.
        """
        sizes = {one.name: one.size for one in self._main}
        for one in self._main:
            if one.operation in _FREE:
                continue
            read: list[float] = [sizes.get(operand, 0) for operand in one.operands]
            if one.operation == "fusion" and one.body in self._computations:
                read = self._read_by_fusion(self._computations[one.body])
            yield one, one.size + sum(read)

    @staticmethod
    def _read_by_fusion(body: list[Instruction]) -> list[float]:
        """Bytes of each parameter that its results depend on.

        A slice needs its share of what it is taken of, through whatever lies between: gradients of
        a concatenation read each a part of one long expression.
        """
        elements = {one.name: math.prod(_sides(one.shape)) for one in body}
        needed: dict[str, float] = defaultdict(float, {body[-1].name: 1.0})
        for one in reversed(body):
            share = min(needed[one.name], 1.0)
            for operand in one.operands:
                is_slice = one.operation in _SLICES and elements.get(operand)
                part = elements[one.name] / elements[operand] if is_slice else 1.0
                needed[operand] += share * part
        parameters = (one for one in body if one.operation == "parameter")
        return [one.size * min(needed[one.name], 1.0) for one in parameters]

    def flops(self) -> int:
        """Floating-point operations of products and of cuDNN's convolutions; others are few."""
        total = 0
        for body in self._computations.values():
            sides = {one.name: _sides(one.shape) for one in body}
            for one in body:
                if one.operation == "dot":
                    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)
                    axes = [int(axis) for axis in found[1].split(",") if axis] if found else []
                    left = sides.get(one.operands[0], ())
                    total += 2 * math.prod(_sides(one.shape)) * math.prod(left[a] for a in axes)
                elif one.kind.startswith("__cudnn$conv"):
                    first, second = (sides.get(name, ()) for name in one.operands[:2])
                    result = _sides(one.shape)
                    kernel, image = {
                        "__cudnn$convBackwardFilter": (result, second),
                        "__cudnn$convBackwardInput": (second, first),
                    }.get(one.kind, (second, result))
                    total += 2 * math.prod(kernel) * math.prod(image[:-1])
        return total

    def facts(self) -> dict[str, object]:
        """Numbers that a change of the network or of XLA may make worse."""
        kernels = list(self.kernels())
        everything = [one for body in self._computations.values() for one in body]
        operations = Counter(one.operation for one in everything)
        windows = re.findall(r"window=\{size=(\d+)x(\d+)", self._text)
        sums = [one for one in everything if one.operation in ("all-reduce", "all-reduce-start")]
        return {
            "kernels": len(kernels),
            "kinds": dict(Counter(one.kind for one, _ in kernels).most_common()),
            "gigaflop": self.flops() / 1e9,
            "gigabytes": sum(size for _, size in kernels) / 1e9,
            "all_reduces": len(sums),
            "all_reduce_dtypes": sorted({d for one in sums for d, _ in _ARRAY.findall(one.shape)}),
            "largest_window": max((int(side) for pair in windows for side in pair), default=1),
            "scatters": operations["scatter"],
            "sorts": operations["sort"],
            "donated": len(re.findall(r"(?:may|must)-alias", self._text.split("\n", 1)[0])),
        }


def _sides(shape: str) -> tuple[int, ...]:
    """Sides of an array, or of the first of several."""
    found = _ARRAY.search(shape)
    return tuple(int(side) for side in found[2].split(",") if side) if found else ()


def _split(rest: str) -> tuple[str, str]:
    """Operands and attributes of `operands), attributes`."""
    depth = 1
    for index, character in enumerate(rest):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return rest[:index], rest[index + 1 :]
    return rest, ""
