"""Weights that travel: what is written is what was meant, and it is found wherever it lies."""

import hashlib
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from isl_jax.export import export_model
from isl_jax.export.pretrained import check_pretrained
from isl_jax.inference.info import ModelInfo, NetworkInfo
from isl_jax.inference.model import Model, load_model
from isl_jax.inference.stored import load_stored
from isl_jax.models.heads import build_network
from isl_jax.models.variables import init_variables
from isl_jax.task import Kind, Task


@pytest.fixture(scope="module")
def pretext() -> Model:
    variables = init_variables(build_network(out_channels=1, encoder="tiny"), in_channels=3, seed=0)
    info = ModelInfo(
        "cell",
        "pretrain",
        NetworkInfo("tiny", "none", 1, 3),
        Task("stain"),
        ("phase",) * 3,
        stain="Hoechst",
        licence="CC-BY-4.0",
        training={"fields": ["a1", "b2"], "step": 7, "init": "random"},
    )
    return Model(info, variables)


def leaves(variables):
    return jax.tree.leaves_with_path(jax.tree.map(np.asarray, variables))


def test_float32_weights_come_back_bit_for_bit(pretext, tmp_path):
    out = export_model(pretext, "pretrained", tmp_path / "hela")
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "check.safetensors", "model.json", "weights.safetensors",
    ]  # fmt: skip
    for source in (out, out / "weights.safetensors"):
        info, variables = load_stored(str(source))
        assert info == pretext.info
        for (path, a), (_, b) in zip(leaves(variables), leaves(pretext.variables), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=str(path))
    assert load_model(out).info == pretext.info  # it is a model folder, too
    check_pretrained(out)


def test_bfloat16_halves_the_kernels_and_keeps_the_rest(pretext, tmp_path):
    exact = export_model(pretext, "pretrained", tmp_path / "exact")
    out = export_model(pretext, "pretrained", tmp_path / "half", dtype="bfloat16")
    sizes = [(folder / "weights.safetensors").stat().st_size for folder in (out, exact)]
    assert sizes[0] < 0.6 * sizes[1]
    _, variables = load_stored(str(out))
    for (_, a), (_, b) in zip(leaves(variables), leaves(pretext.variables), strict=True):
        assert a.dtype == np.float32
        bits = np.ascontiguousarray(b, np.float32).view(np.uint32)
        # Round to nearest even of the upper 16 bits, in integers.
        rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).view(np.float32)
        np.testing.assert_array_equal(a, rounded if b.ndim == 4 else b)
    check_pretrained(out)


def test_the_card_says_what_it_is_and_whose(pretext, tmp_path):
    terms = ["HeLa (Nobody 2026): CC0", "T98G: MIT"]
    out = export_model(pretext, "pretrained", tmp_path / "hela", data_licences=terms)
    card = (out / "README.md").read_text()
    digest = hashlib.sha256((out / "weights.safetensors").read_bytes()).hexdigest()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    for told in (*terms, digest, "Hoechst", "2 fields: a1, b2", "phase, phase, phase"):
        assert told in card, told
    bare = export_model(pretext, "pretrained", tmp_path / "bare")
    assert "* not stated: ask whoever trained the model" in (bare / "README.md").read_text()


def test_a_check_can_fail(pretext, tmp_path):
    out = export_model(pretext, "pretrained", tmp_path / "hela")
    kept = load_file(out / "check.safetensors")
    save_file(kept | {"outputs": kept["outputs"] + 0.1}, out / "check.safetensors")
    with pytest.raises(RuntimeError, match=r"hela gives outputs that differ from ours by"):
        check_pretrained(out)


def test_what_is_refused(pretext, make_model, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match=r"there: exists already; name a new folder with --out"):
        export_model(pretext, "pretrained", tmp_path / "there")
    with pytest.raises(ValueError, match="dtype 'int8': choose one of float32, bfloat16"):
        export_model(pretext, "pretrained", tmp_path / "x", dtype="int8")
    with pytest.raises(ValueError, match="those of a pretext run"):
        export_model(make_model(Kind.SEMANTIC), "pretrained", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_hostile_files_are_one_line(pretext, tmp_path):
    weights = export_model(pretext, "pretrained", tmp_path / "hela") / "weights.safetensors"
    arrays = load_file(weights)
    for name, metadata, told in (
        ("bare", None, "does not say what its weights are of"),
        ("words", {"isl_jax": "{"}, "damaged description"),
        ("deep", {"isl_jax": "[" * 100_000}, "damaged description"),
        ("list", {"isl_jax": "[]"}, "schema version None"),
        ("other", {"isl_jax": json.dumps(pretext.info.to_json() | {"channels": 3})}, "channels"),
    ):
        save_file(arrays, tmp_path / f"{name}.safetensors", metadata)
        with pytest.raises(ValueError, match=told) as caught:
            load_stored(str(tmp_path / f"{name}.safetensors"))
        assert "\n" not in str(caught.value) and name in str(caught.value)
    whole = weights.read_bytes()
    for name, content in (("cut", whole[:-9]), ("pickle", b"\x80\x04."), ("long", whole + b"x")):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.safetensors: damaged, cannot be read"):
            load_stored(str(tmp_path / f"{name}.safetensors"))
    (tmp_path / "model.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"taken from folders and \.safetensors files"):
        load_stored(str(tmp_path / "model.pth"))
    with pytest.raises(FileNotFoundError, match=r"gone/model\.json: no such file"):
        load_stored(str(tmp_path / "gone"))
    name, array = next(iter(arrays.items()))
    save_file({**arrays, name: array.astype(np.int32)}, tmp_path / "ids.safetensors")
    with pytest.raises(ValueError, match="no finite numbers"):
        load_stored(str(tmp_path / "ids.safetensors"))
