from pathlib import Path

import numpy as np

from isl_jax.ingest.fields import RawField
from isl_jax.ingest.overview import ChannelOverview
from isl_jax.ingest.survey import Survey

ROW = ChannelOverview("phase", 40, 50, np.dtype("u2"), 1, 0, 9, 0.0, 0)
LABELS = ChannelOverview("masks (labels)", 40, 50, np.dtype("i4"), 1, 0, 9, None, 0, (7, 7))


def surveyed(count, faulty=(), study="cell"):
    survey = Survey(count, study)
    for k in range(count):
        field = RawField(f"f{k:05}", "g", {})
        survey.add(field, "train", [ROW, LABELS], [f"f{k:05} is bad"] * (k in faulty))
    return survey.lines([Path(f"x{k}.tif") for k in range(count)])


def test_thousands_of_fields_end_in_a_summary():
    lines = surveyed(5000, faulty=[3, *range(4000, 4200)])
    assert len(lines) < 200
    assert lines[1].startswith("f00000") and any(line.startswith("f04000") for line in lines)
    assert "fault: f00003 is bad" in lines and "and 151 more faults" in lines
    assert "and 4980 more files not used" in lines
    assert lines[-1].startswith(
        "5000 fields (5000 of 40×50), 5000 with labels, 201 with faults; shown are the first 20"
    )


def test_a_few_fields_are_all_shown_with_the_pieces_of_their_labels():
    lines = surveyed(3)
    assert len(lines) == 1 + 6 + 3
    assert lines[2].endswith("7 cells, 7 in several pieces")
    assert surveyed(1, study="nucleus")[2].endswith("7 nuclei, 7 in several pieces")
