"""What a regression of the compiled step would break, asked of the compiler for absent devices."""

import pytest

from isl_jax.launch.benchmarks._hlo import Program
from isl_jax.launch.benchmarks.compile import TARGETS, Request, lacking, main

PROGRAM = """HloModule jit_train_step, input_output_alias={ {0}: (0, {}, may-alias) }

%slices (p0: f32[8,4], p1: f32[4]) -> f32[4] {
  %p0 = f32[8,4]{1,0} parameter(0)
  %p1 = f32[4]{0} parameter(1)
  %row = f32[1,4]{1,0} slice(%p0), slice={[0:1], [0:4]}
  %flat = f32[4]{0} bitcast(%row)
  ROOT %sum = f32[4]{0} add(%flat, %p1)
}

ENTRY %main (a: f32[8,4], b: f32[4], x: bf16[2,8,8,3], k: bf16[5,3,3,3]) -> (f32[4], f32[4]) {
  %a = f32[8,4]{1,0} parameter(0)
  %b = f32[4]{0} parameter(1)
  %x = bf16[2,8,8,3]{3,2,1,0} parameter(2)
  %k = bf16[5,3,3,3]{3,2,1,0} parameter(3)
  %fused = f32[4]{0} fusion(%a, %b), kind=kLoop, calls=%slices
  %conv = (bf16[2,8,8,5]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), window={size=3x3 pad=1_1x1_1}, \
custom_call_target="__cudnn$convForward"
  %start = f32[4]{0} all-reduce-start(%fused), to_apply=%add
  %done = f32[4]{0} all-reduce-done(%start)
  ROOT %both = (f32[4]{0}, f32[4]{0}) tuple(%done, %fused)
}
"""


def test_facts_of_a_program():
    facts = Program(PROGRAM).facts()
    assert facts["kernels"] == 3
    assert facts["kinds"] == {
        "fusion loop": 1,
        "__cudnn$convForward": 1,
        "all-reduce-start": 1,
    }
    # The fusion reads one row of the eight; the convolution reads both and writes one.
    fusion, convolution, total = 3 * 16, 2 * (2 * 64 * 3 + 5 * 27 + 2 * 64 * 5), 2 * 16
    assert facts["gigabytes"] == pytest.approx((fusion + convolution + total) / 1e9)
    assert facts["gigaflop"] == pytest.approx(2 * 5 * 27 * 2 * 64 / 1e9)
    assert (facts["all_reduces"], facts["all_reduce_dtypes"]) == (1, ["f32"])
    assert (facts["largest_window"], facts["donated"]) == (3, 1)


def test_a_missing_plugin_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs libtpu: pip install 'jax\[tpu\]'"):
        main(Request("v5e"))


# Kernels and GB of the step of 4 crops of 128² a device, encoder "tiny", with a tenth to spare.
CEILINGS = {1: (880, 0.39), 4: (1200, 0.42)}


@pytest.mark.parametrize("devices", CEILINGS)
@pytest.mark.parametrize("target", TARGETS)
def test_the_step_of_a_gpu_is_as_good_as_it_was(target, devices):
    reason = lacking(target)
    if reason:
        pytest.skip(reason)
    figures = main(Request(target, devices, 4 * devices, size=128, encoder="tiny"))
    # A gradient that convolves with an image as its kernel, or searches windows, is a disaster.
    assert figures["largest_window"] <= 7
    assert figures["scatters"] == figures["sorts"] == 0
    # Every array of the state takes the place of its old one: as large, hence replicated.
    assert figures["donated"] == figures["leaves"]
    assert set(figures["all_reduce_dtypes"]) <= {"f32"}
    if target == "h100":
        kernels, gigabytes = CEILINGS[devices]
        assert figures["kernels"] <= kernels and figures["gigabytes"] <= gigabytes
        assert figures["all_reduces"] <= (0 if devices == 1 else 105)
