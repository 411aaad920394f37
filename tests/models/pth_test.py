"""State dicts that PyTorch wrote, and files that only look like them."""

import io
import pickle
import resource
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from isl_jax.models.pth import read_pth

MAGIC = [
    pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
]


def legacy(*pickles: bytes, rest: bytes = b"") -> bytes:
    """A file of the format without zip: three pickles that say so, then its own."""
    return b"".join([*MAGIC, *pickles]) + rest


def storage(count: int, key: str = "0", kind: str = "FloatStorage") -> bytes:
    """Opcodes of a reference to a storage."""
    text = b"X" + len(key).to_bytes(4, "little") + key.encode()
    number = b"\x8a\x08" + count.to_bytes(8, "little", signed=True)
    return (
        b"(X\x07\0\0\0storagectorch\n" + kind.encode() + b"\n" + text + b"X\x03\0\0\0cpu"
        + number + b"NtQ"
    )  # fmt: skip


def tensor(shape: tuple, strides: tuple, count: int = 4, offset: int = 0) -> bytes:
    """Opcodes of a tensor that lies in a storage of `count` values."""
    parts = [pickle.dumps(part, 2)[2:-1] for part in (offset, shape, strides)]
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(count) + b"".join(parts) + b"tR"


def state_dict(value: bytes) -> bytes:
    """A pickle of {"w": value}."""
    return b"\x80\x02}X\x01\0\0\0w" + value + b"s."


def stored(value: bytes, count: int = 4) -> bytes:
    """A legacy file that holds {"w": value} and a storage of `count` floats."""
    data = np.arange(count, dtype="<f4")
    keys = pickle.dumps(["0"], 2)
    return legacy(state_dict(value), keys, rest=count.to_bytes(8, "little") + data.tobytes())


def zipped(value: bytes, packing: int = zipfile.ZIP_STORED) -> bytes:
    """The same as an archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        archive.writestr("w/data.pkl", state_dict(value))
        archive.writestr("w/data/0", np.arange(4, dtype="<f4").tobytes())
    return buffer.getvalue()


@pytest.mark.parametrize("make", [stored, zipped])
def test_a_tensor_is_a_view_of_its_storage(tmp_path, make):
    (tmp_path / "w.pth").write_bytes(make(tensor((2, 2), (1, 2))))
    np.testing.assert_array_equal(read_pth(tmp_path / "w.pth")["w"], [[0, 2], [1, 3]])


def test_both_formats_of_a_real_network(fixtures: Path):
    old, new = (
        read_pth(fixtures / f"tiny_densenet_{name}.pth") for name in ("hubstyle", "torchvision")
    )
    assert len(old) == 116 and len(new) == 139
    assert sum(v.sum() for v in old.values()) == pytest.approx(sum(v.sum() for v in new.values()))


def deep(open_: bytes, value: bytes = b"I1\ns.") -> bytes:
    return b"\x80\x04})" + open_ * 160_000 + value


HOSTILE = {
    "a deep tuple as a key": legacy(deep(b"\x85")),
    "a tuple of two equal ones, and so on": legacy(b"\x80\x04})" + b"2\x86" * 200 + b"I1\ns."),
    "strides of 0": stored(tensor((1 << 30,), (0,))),
    "a shape beyond its storage": stored(tensor((5,), (1,))),
    "a shape whose strides leave it": stored(tensor((2, 2), (1, 3))),
    "an offset beyond its storage": stored(tensor((1,), (1,), offset=4)),
    "numbers that overflow": stored(tensor((0, 1 << 70), (1, 1))),
    "negative strides": stored(tensor((2,), (-1,))),
    "a huge storage": stored(tensor((1,), (1,), count=1 << 40)),
    "a negative storage": stored(tensor((0,), (1,), count=-1)),
    "many axes": stored(tensor((1,) * 100, (1,) * 100)),
    "a type that torch does not have": stored(tensor((1,), (1,)).replace(b"FloatS", b"BombyS")),
    "the state of a dtype": legacy(
        b"\x80\x02}X\x01\0\0\0wctorch\nFloatStorage\n(K\x03X\x01\0\0\0<tbs."
    ),
    "a call of what is no name": legacy(state_dict(b"K\x01)R")),
    "a command": legacy(state_dict(b"cos\nsystem\n(X\x04\0\0\0exittR")),
    "an unknown opcode": legacy(state_dict(b"\x82\x01")),
    "a forged length": legacy(b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x."),
    "no tensors": legacy(b"\x80\x02}.", pickle.dumps([], 2)),
    "cut": stored(tensor((2, 2), (1, 2)))[:-3],
    "nothing": b"",
    "an archive that is packed": zipped(tensor((4,), (1,)), zipfile.ZIP_DEFLATED),
    "an archive cut": zipped(tensor((4,), (1,)))[:-30],
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_named(tmp_path, content):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"w\.pth: not a plain PyTorch state dict \(.*save it"):
        read_pth(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_tied_weights_are_read_once(tmp_path):
    value = tensor((4,), (1,))
    names = b"".join(b"X\x04\0\0\0" + f"w{k:03}".encode() + value for k in range(200))
    content = b"\x80\x02}(" + names + b"u."
    data = np.arange(4, dtype="<f4").tobytes()
    whole = legacy(content, pickle.dumps(["0"], 2), rest=(4).to_bytes(8, "little") + data)
    (tmp_path / "w.pth").write_bytes(whole)
    found = read_pth(tmp_path / "w.pth")
    assert len(found) == 200 and len({id(array) for array in found.values()}) == 1


def test_a_file_that_is_not_there_says_so(tmp_path):
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_pth(tmp_path / "w.pth")
