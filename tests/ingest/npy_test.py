import struct

import numpy as np
import pytest

from isl_jax.ingest import readers


def write_npy(path, header: bytes, content: bytes = b"abcd"):
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content)
    return path


HEADER = "{'descr': '<u2', 'fortran_order': False, 'shape': %s, }\n"


@pytest.mark.parametrize(
    "shape",
    [
        "(10**9, 10**9)", "(99999999999999999999, 2)", "(-4, 5)", "(0, 0)", "(1, 2", "(1, 2)*9",
        "(3, 4)", "'x'", "(None, 2)", "(((((((((((((((((((((((1,),),),),)",
    ],
)  # fmt: skip
def test_a_header_that_tells_of_other_pixels_is_named(tmp_path, shape):
    path = write_npy(tmp_path / "x.npy", (HEADER % shape).encode())
    with pytest.raises(ValueError, match=r"x.npy: ") as caught:
        readers.open_image(path)
    assert "\n" not in str(caught.value)


def test_masks_of_mesmer_and_images_with_channels_last(tmp_path):
    masks = np.arange(35).reshape(1, 5, 7, 1)
    np.save(tmp_path / "m.npy", masks)
    np.testing.assert_array_equal(readers.read(tmp_path / "m.npy"), masks[..., 0])
    np.save(tmp_path / "c.npy", np.zeros((64, 64, 3)))
    with pytest.raises(ValueError, match=r"c.npy: .* looks like \[H, W, C\]"):
        readers.inspect(tmp_path / "c.npy")
