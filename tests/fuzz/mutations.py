"""Damage: bytes of a file to other bytes, blindly, or where its format keeps what hurts."""

import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

_NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
_TEXTS = (
    "",
    "..",
    "../../etc",
    "/etc/passwd",
    "nan",
    "-1",
    "1e400",
    "a\0b",
    "=1+1",
    "\udcff",
    "x" * 5000,
)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), [], {}, [None], {"": 0}, *_TEXTS,
)  # fmt: skip


def flip(content: bytes, rng: random.Random) -> bytes:
    """A few bits."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_early(content: bytes, rng: random.Random) -> bytes:
    """A few bits of the first kilobyte, where headers are."""
    head = content[:1024]
    return flip(head, rng) + content[1024:]


def cut(content: bytes, rng: random.Random) -> bytes:
    """The end is missing, or all."""
    return content[: rng.choice((0, 1, 4, 8, rng.randrange(len(content)), len(content) - 1))]


def splice(content: bytes, rng: random.Random) -> bytes:
    """A piece is taken out, put in again, or written over another."""
    start, length = rng.randrange(len(content)), rng.choice((1, 2, 4, 16, 64, 512))
    piece, to = content[start : start + length], rng.randrange(len(content))
    return rng.choice(
        (
            content[:start] + content[start + length :],
            content[:to] + piece + content[to:],
            content[:to] + piece + content[to + length :],
            content[:to] + bytes(length) + content[to + length :],
            content + piece,
        )
    )


def number(content: bytes, rng: random.Random) -> bytes:
    """A number of 1 to 8 bytes becomes one that is an end of something."""
    size = rng.choice((1, 2, 4, 8))
    at = rng.randrange(min(len(content), rng.choice((64, 512, 1 << 30))))
    value = rng.choice(_NUMBERS) % (1 << 8 * size)
    return content[:at] + value.to_bytes(size, rng.choice(("little", "big"))) + content[at + size :]


def tag(content: bytes, rng: random.Random) -> bytes:
    """An entry of a TIFF directory: its code, type, count or value; or where the next one is."""
    if content[:4] != b"II*\0":
        return number(content, rng)
    changed, directories = bytearray(content), []
    at = struct.unpack_from("<I", content, 4)[0]
    while 0 < at < len(content) - 2 and at not in directories:
        directories.append(at)
        at += 2 + 12 * struct.unpack_from("<H", content, at)[0]
        at = struct.unpack_from("<I", content, at)[0] if at < len(content) - 4 else 0
    start = rng.choice(directories or [8])
    entries = struct.unpack_from("<H", content, start)[0]
    if rng.random() < 0.1:  # loops, and ends that are none
        value = rng.choice((start, directories[0], 8, len(content), 0))
        struct.pack_into("<I", changed, start + 2 + 12 * entries, value)
        return bytes(changed)
    entry = start + 2 + 12 * rng.randrange(entries)
    where, form = rng.choice(((0, "<H"), (2, "<H"), (4, "<I"), (8, "<I")))
    most = 1 << 8 * struct.calcsize(form)
    struct.pack_into(
        form, changed, entry + where, rng.choice((*_NUMBERS, rng.randrange(most))) % most
    )
    return bytes(changed)


def words(content: bytes, rng: random.Random) -> bytes:
    """A number or a name in text becomes another; lines are lost or doubled."""
    pieces = re.split(rb"(\d+|[A-Za-z_]+|\n)", content)
    places = [k for k in range(1, len(pieces), 2)]
    if not places:
        return flip(content, rng)
    k = rng.choice(places)
    other = rng.choice(
        (b"", b"-1", b"0", b"1e400", b"99999999999999999999", b"nan", b"\xff", b"<", b'"')
    )
    pieces[k] = rng.choice(
        (other, pieces[rng.choice(places)], pieces[k] * 2, str(rng.choice(_NUMBERS)).encode())
    )
    return b"".join(pieces)


def nest(content: bytes, rng: random.Random) -> bytes:
    """Brackets in brackets, deeper than a parser can follow."""
    depth = rng.choice((100, 2_000, 200_000))
    left, right = rng.choice((b"[]", b"{}", b"()", b"<>")).decode()
    return (left * depth + (right * depth if rng.random() < 0.5 else "")).encode() + content


def table(content: bytes, rng: random.Random) -> bytes:
    """A value of a JSON file, wherever in it, becomes one of another kind; or a key is lost."""
    try:
        value = json.loads(content)
    except ValueError:
        return words(content, rng)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            places.append((node, key))
            if isinstance(inner, dict | list):
                walk(inner)

    if not isinstance(value, dict | list) or (walk(value) or not places):
        return words(content, rng)
    node, key = rng.choice(places)
    choice = rng.random()
    if choice < 0.15:
        del node[key]
    elif choice < 0.3:
        other, name = rng.choice(places)
        node[key] = json.loads(
            json.dumps(other.get(name) if isinstance(other, dict) else other[:3])
        )
    elif choice < 0.35:
        return json.dumps(
            rng.choice((value, [value], *_VALUES)) if rng.random() < 0.5 else node[key]
        ).encode()
    else:
        node[key] = rng.choice(_VALUES)
    return json.dumps(value).encode()


def inside_zip(content: bytes, rng: random.Random) -> bytes:
    """A member of an archive is damaged, and the archive put together again, or packed."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError):
        return flip(content, rng)
    name = rng.choice([*members, *(n for n in members if n.endswith(".pkl"))])
    if rng.random() < 0.1:
        del members[name]
    elif members[name]:
        members[name] = rng.choice((flip, cut, splice, number, words))(members[name], rng)
    made = io.BytesIO()
    packing = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(made, "w", packing) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return made.getvalue()


def inside_png(content: bytes, rng: random.Random) -> bytes:
    """A chunk of a PNG file is damaged, and its checksum set right."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        length = struct.unpack_from(">I", content, at)[0]
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return flip(content, rng)
    k = rng.randrange(len(chunks))
    kind, data = chunks[k]
    if data:
        chunks[k] = kind, rng.choice((flip, cut, number))(data, rng)
    if rng.random() < 0.2:
        chunks.insert(k, rng.choice(chunks))
    told = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return content[:8] + b"".join(told)


def inside_safetensors(content: bytes, rng: random.Random) -> bytes:
    """The header of a safetensors file is damaged, and its length set right."""
    length = int.from_bytes(content[:8], "little")
    header = rng.choice((table, words))(content[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


BLIND: tuple[Mutation, ...] = (flip, flip_early, cut, splice, number)
BY_SUFFIX: dict[str, tuple[Mutation, ...]] = {
    ".tif": (tag, tag, tag, words),
    ".png": (inside_png, inside_png),
    ".pth": (inside_zip, inside_zip, number),
    ".zip": (inside_zip,),
    ".npy": (words, nest),
    ".json": (table, table, table, words, nest),
    ".zattrs": (table, table, words),
    ".zgroup": (table,),
    ".zarray": (table, table, table),
    ".jsonl": (words,),
    ".csv": (words, words),
    ".txt": (words, nest),
    ".toml": (words, words, nest),
    ".xml": (words, words, nest),
    ".safetensors": (inside_safetensors, inside_safetensors),
}


def mutated(content: bytes, suffix: str, rng: random.Random) -> bytes:
    """A file that is damaged once, sometimes twice."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not content:
            break
        own = BY_SUFFIX.get(suffix, ())
        mutation = rng.choice(own if own and rng.random() < 0.7 else BLIND)
        try:
            content = mutation(content, rng)
        except Exception:  # damaged beyond what the mutation knows of its format
            content = flip(content, rng)
    return content
