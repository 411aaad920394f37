"""What `model.json` may say, and what is refused by its name."""

import json

import pytest

from isl_jax.inference.info import ModelInfo, NetworkInfo, read_info, write_info
from isl_jax.task import Task

INFO = ModelInfo(
    "cell", "segment", NetworkInfo("tiny", "none", 2, 1), Task("distance_and_semantic"), ("bf",)
)


def test_it_comes_back(tmp_path):
    write_info(tmp_path, INFO)
    assert read_info(tmp_path / "model.json") == INFO


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("study", 3), ("stage", "middle"), ("stage", ["segment"]), ("network", []),
        ("network.encoder", "../densenet"), ("network.head", None), ("network.out_channels", 3),
        ("network.in_channels", -1), ("network.in_channels", True), ("network.in_channels", 1e9),
        ("objective", None), ("objective.target", {}), ("objective.slope", "1"),
        ("objective.slope", float("nan")), ("objective.slope", 10**400),
        ("distance_unit", float("inf")), ("distance_unit", None),
        ("channels", "bf"), ("channels", []), ("channels", [1]), ("channels", ["a\nb"]),
        ("channels", ["a", "b"]), ("binning", 0), ("binning", 2.0), ("binning", "2"),
        ("stain", 4), ("stain_scale", 4), ("stain_scale", {"low": 1, "high": "2"}),
        ("h", "big"), ("h", -1), ("h", float("nan")), ("postprocessing", [1]),
        ("postprocessing.threshold", "half"), ("postprocessing.min_size", 1.5),
        ("postprocessing.fill_holes", "no"), ("tta", 4.0), ("tta", [4]),
        ("normalisation", {"kind": 3}),
        ("normalisation", {"kind": "flat", "clip": "x"}), ("stain_scale", {"low": 0}),
        ("licence", None), ("training", "much"),
    ],
    ids=str,
)  # fmt: skip
def test_values_that_cannot_be_are_named(tmp_path, key, value):
    write_info(tmp_path, INFO)
    file = tmp_path / "model.json"
    stored = json.loads(file.read_text())
    *parents, last = key.split(".")
    table = stored
    for parent in parents:
        table = table[parent]
    table[last] = value
    file.write_text(json.dumps(stored))
    with pytest.raises(ValueError) as raised:
        read_info(file)
    text = str(raised.value)
    assert text.startswith(f"{file}: ") and "copy the model again" in text and "\n" not in text


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"schema_version": 1}'])
def test_what_is_no_description_is_named(tmp_path, content):
    file = tmp_path / "model.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.json: "):
        read_info(file)
