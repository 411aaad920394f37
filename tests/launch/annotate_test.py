"""`isl-annotate`, and `isl-prepare` taking its folder back, as a user starts them."""

import shutil

import numpy as np
import pytest
import tifffile

from isl_jax.data.store import open_dataset
from tests.annotate.conftest import FIELDS, dataset, prepared  # noqa: F401  (fixtures)


def test_a_folder_goes_out_and_comes_back(launch, dataset, tmp_path):  # noqa: F811
    done = launch("annotate", f"--root={dataset.root}", "--count=2", "--out=todo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    drafts = sorted((tmp_path / "todo").glob("*_draft.tif"))
    assert len(drafts) == 2
    name = drafts[0].name.removesuffix("_draft.tif")
    shutil.copy(drafts[0], tmp_path / "todo" / f"{name}_masks.tif")
    done = launch("prepare", "--source=todo", "--out=new", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "is the draft, pixel for pixel" in done.stdout
    new = open_dataset(tmp_path / "new")
    assert {f.name for f in new.fields if f.has_labels} == {"f3", name}
    assert new.labels(name).max() == FIELDS[name][1] == tifffile.imread(drafts[0]).max()
    # A second time for the same folder: its masks are never overwritten.
    done = launch("annotate", f"--root={dataset.root}", "--out=todo", "--overwrite", cwd=tmp_path)
    assert done.returncode == 1 and "never overwritten" in done.stderr


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])  # as Fiji and as napari save
def test_what_was_painted_unknown_comes_back_as_such(launch, dataset, tmp_path, dtype):  # noqa: F811
    launch("annotate", f"--root={dataset.root}", "--count=1", "--out=todo", cwd=tmp_path)
    draft = next((tmp_path / "todo").glob("*_draft.tif"))
    name = draft.name.removesuffix("_draft.tif")
    labels = tifffile.imread(draft).astype(dtype)
    labels[:10] = 65535
    tifffile.imwrite(tmp_path / "todo" / f"{name}_masks.tif", labels)
    done = launch("prepare", "--source=todo", "--out=new", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.rstrip().endswith("(--ignore=65535)")
    done = launch("prepare", "--source=todo", "--ignore=65535", "--out=new", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    new = open_dataset(tmp_path / "new")
    assert np.array_equal(new.ignored(name), labels == 65535)
    assert np.array_equal(new.labels(name), np.where(labels == 65535, 0, labels))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--count=9", "--out=todo"], "has 4 fields of --split=train without labels"),
        (["--drafts", "--out=todo"], "leave out --out"),
        (["--out=todo", "--drafter=cellpose"], "pip install cellpose"),
        (["--out=todo", "--nuclei=dapi"], "shows nuclei itself"),
        (["--out=todo", "--shows=cells", "--nuclei=dapi"], "no field of"),
        (["--out=todo", "--model=nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    launch,
    dataset,  # noqa: F811
    tmp_path,
    arguments,
    told,
):
    before = sorted(tmp_path.rglob("*"))
    done = launch("annotate", f"--root={dataset.root}", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error:") and told in last
    assert sorted(tmp_path.rglob("*")) == before


def test_options_of_raw_files_are_refused_for_such_a_folder(launch, dataset, tmp_path):  # noqa: F811
    launch("annotate", f"--root={dataset.root}", "--count=1", "--out=todo", cwd=tmp_path)
    done = launch("prepare", "--source=todo", "--bin=2", "--out=new", cwd=tmp_path)
    assert done.returncode == 1 and "--bin" in done.stderr
    done = launch("prepare", "--source=todo", "--out=new", cwd=tmp_path)
    assert done.returncode == 1 and "no field is annotated yet" in done.stderr
    shutil.move(dataset.root, tmp_path / "moved")
    done = launch("prepare", "--source=todo", "--out=new", cwd=tmp_path)
    assert done.returncode == 1 and "give --root" in done.stderr
    assert not (tmp_path / "new").exists()
