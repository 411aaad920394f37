import pytest

from isl_jax.ingest.lengths import micrometres, spacing_of


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("µm", 1), ("μm", 1), ("um", 1), ("\\u00B5m", 1), ("Micron", 1), ("microns", 1),
        ("micrometer", 1), ("Micrometre", 1), ("nm", 1e-3), ("nanometers", 1e-3), ("mm", 1e3),
        ("cm", 1e4), ("centimeter", 1e4), ("m", 1e6), ("meter", 1e6), ("km", 1e9), ("pm", 1e-6),
        ("Å", 1e-4), ("angstrom", 1e-4), ("ångström", 1e-4), ("inch", 25400), ("Inches", 25400),
        ("in", 25400), ("foot", 304800), ("pixel", None), ("", None), (None, None), ("s", None),
        ("reference frame", None), ("Mm", None),
    ],
)  # fmt: skip
def test_units_as_files_spell_them(unit, expected):
    assert micrometres(unit) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("bad", ["0,5", "NaN", "0", "-1", "inf", "", [], "1e400"])
def test_a_side_that_is_no_positive_finite_number_is_unknown(bad):
    assert spacing_of(bad, "0.5", "µm", "µm") is None
    assert spacing_of("0.5", bad, "µm", "µm") is None


def test_sides_have_units_of_their_own_and_a_missing_one_is_like_the_other():
    assert spacing_of("0.5", "250", "µm", "nm") == (0.5, 0.25)
    assert spacing_of(None, 2, "µm", "nm") == (0.002, 0.002)
    assert spacing_of(None, None, "µm", "µm") is None
