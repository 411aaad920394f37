import io
import pickle
import struct

import numpy as np
import pytest

from isl_jax.ingest import readers
from isl_jax.ingest.pickled import NotHarmlessError, load_arrays


def write_seg(path, content: bytes):
    """A .npy of one object whose pickle is `content`."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content)
    return path


MASKS = np.arange(12).reshape(3, 4)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(
    "masks",
    [MASKS.astype(np.uint16), np.asfortranarray(MASKS), MASKS.astype(">i4"), MASKS[::2]],
    ids=["uint16", "fortran", "big endian", "strided"],
)
def test_masks_come_back_as_they_were(tmp_path, protocol, masks):
    content = {
        "masks": masks, "outlines": [MASKS, None], "est_diam": np.float32(3), "n": 2**70,
        "names": np.array(["a", None], object), "colors": {1: (1.5, True, b"x", "ä")},
    }  # fmt: skip
    path = write_seg(tmp_path / "x_seg.npy", pickle.dumps(np.array(content, object), protocol))
    read = readers.read(path)[0]
    np.testing.assert_array_equal(read, masks)
    assert read.dtype == masks.dtype


def array_pickle(state: bytes) -> bytes:
    """A dictionary whose `masks` is an array that is set to a state."""
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tC\1btR"
    return b"\x80\x04}\x8c\x05masks" + empty + state + b"bs."


DTYPE = b"cnumpy\ndtype\n\x8c\x02{}\x89\x88\x87R"
HOSTILE = {
    # The state of a dtype with names and fields of its own, which numpy would take to its memory.
    "forged dtype": array_pickle(
        b"(K\1(K\1K\1t"
        + DTYPE.replace(b"{}", b"i4")
        + b"(K\3\x8c\1<NNNJ\xff\xff\xff\xffb\x89C\4aaaat"
    ),
    "object array of bytes": array_pickle(
        b"(K\1(K\1t" + DTYPE.replace(b"{}", b"O8") + b"\x89C\x08AAAAAAAAt"
    ),
    "more shape than bytes": array_pickle(
        b"(K\1(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft" + DTYPE.replace(b"{}", b"i8") + b"\x89C\4aaaat"
    ),
    "negative shape": array_pickle(
        b"(K\1(J\xff\xff\xff\xfft" + DTYPE.replace(b"{}", b"i1") + b"\x89C\1at"
    ),
    "state of the wrong kind": array_pickle(b"K\1"),
    "deep key": b"\x80\x04})" + b"\x85" * 200_000 + b"I1\ns.",
    "length without content": b"\x80\x04}\x8c\x05masks\x8e" + struct.pack("<Q", 2**62) + b"s.",
    "calls text": b"\x80\x04\x8c\x01x)R.",
    "sets the state of a maker": b"\x80\x04cnumpy\nndarray\n}\x8c\x01ax\x8c\x01bsb.",
    "itself": b"\x80\x04]\x94h\0a.",
    "ends": b"\x80\x04}\x8c\x05masks",
    "nothing on the stack": b"\x80\x04s.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_one_line_that_names_the_file(tmp_path, name):
    path = write_seg(tmp_path / "x_seg.npy", HOSTILE[name])
    with pytest.raises(ValueError, match=r"x_seg.npy: ") as caught:
        readers.open_image(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "content",
    [b"cos\nsystem\n(S'true'\ntR.", b"\x80\x04(i__main__\nx\n.", b"\x80\x02\x82\1.", b"Pabc\n."],
    ids=["global", "inst", "extension", "persistent"],
)
def test_whatever_refers_elsewhere_is_refused(tmp_path, content):
    with pytest.raises(NotHarmlessError):
        load_arrays(io.BytesIO(content))
    with pytest.raises(ValueError, match=r"x_seg.npy: "):
        readers.open_image(write_seg(tmp_path / "x_seg.npy", content))
