"""The folder for the annotator: what is written, what comes back, what is refused."""

import numpy as np
import pytest
import tifffile

from isl_jax.annotate.drafting import Drafter, draft_fields
from isl_jax.annotate.outgoing import write_folder
from isl_jax.annotate.returned import (
    check_free,
    is_annotation_folder,
    returned_masks,
    root_of,
    unchanged_drafts,
)
from isl_jax.ingest.labels import read_label_image
from isl_jax.study.choice import suggest


@pytest.fixture
def todo(dataset, tmp_path):
    candidates = [f for f in dataset.select("train") if not f.has_labels]
    suggestion = suggest(dataset, candidates)
    names = [item.name for item in suggestion.order[:2]]
    drafts = {n: (labels, worth) for n, labels, worth in draft_fields(dataset, names, Drafter())}
    write_folder(tmp_path / "todo", dataset, suggestion, drafts, 2)
    return tmp_path / "todo"


def names_in(todo) -> list[str]:
    return sorted(path.name.removesuffix("_draft.tif") for path in todo.glob("*_draft.tif"))


def test_what_is_written(todo, dataset):
    first, second = names_in(todo)
    assert {first[0], second[0]} == {"c", "f"}, "one field of each kind"
    for name in (first, second):
        image = tifffile.imread(todo / f"{name}_image.tif")
        # The same plane twice is one plane.
        np.testing.assert_array_equal(image, dataset.inputs(name)[..., 0])
        np.testing.assert_array_equal(
            tifffile.imread(todo / f"{name}_stain.tif"), dataset.stain_image(name)
        )
        assert tifffile.imread(todo / f"{name}_draft.tif").dtype == np.uint16
    assert is_annotation_folder(todo) and root_of(todo) == dataset.root
    page = (todo / "index.html").read_text()
    assert page.count("<img") == 2 and page.count('class="chosen"') == 2
    assert "://" not in page, "it needs no network"
    assert "_masks.tif" in (todo / "README.md").read_text()
    assert len((todo / "list.csv").read_text().splitlines()) == 1 + 4


def test_masks_come_back_and_untouched_fields_do_not(todo):
    first, second = names_in(todo)
    labels = tifffile.imread(todo / f"{first}_draft.tif")
    labels[:5, :5] = 900
    tifffile.imwrite(todo / f"{first}_masks.tif", labels)
    masks, untouched = returned_masks(todo, read_label_image)
    np.testing.assert_array_equal(masks[first], labels)
    assert untouched == [second] and not unchanged_drafts(todo, masks)
    with pytest.raises(ValueError, match="never overwritten"):
        check_free(todo, overwrite=True)


def test_what_cellpose_saves_is_read(todo):
    first, _ = names_in(todo)
    labels = tifffile.imread(todo / f"{first}_draft.tif")
    np.save(todo / f"{first}_stain_seg.npy", {"masks": labels}, allow_pickle=True)
    masks, _ = returned_masks(todo, read_label_image)
    np.testing.assert_array_equal(masks[first], labels)
    assert unchanged_drafts(todo, masks) == [first]


def test_what_is_refused(todo):
    first, second = names_in(todo)
    with pytest.raises(ValueError, match="no field is annotated yet"):
        returned_masks(todo, read_label_image)
    draft = todo / f"{first}_draft.tif"
    labels, kept = tifffile.imread(draft), draft.read_bytes()
    tifffile.imwrite(draft, np.where(labels == 1, 0, labels))
    with pytest.raises(ValueError, match=f"save it as {first}_masks.tif"):
        returned_masks(todo, read_label_image)
    with pytest.raises(ValueError, match="never overwritten"):
        check_free(todo, overwrite=True)
    draft.write_bytes(kept)
    mask = todo / f"{second}_masks.tif"
    tifffile.imwrite(mask, labels[::2, ::2])
    with pytest.raises(ValueError, match="80 × 96 pixels, the image is 160 × 192"):
        returned_masks(todo, read_label_image)
    tifffile.imwrite(mask, np.zeros_like(labels))
    with pytest.raises(ValueError, match="holds no object"):
        returned_masks(todo, read_label_image)
    np.save(todo / f"{second}_masks.npy", labels)
    with pytest.raises(ValueError, match="keep one"):
        returned_masks(todo, read_label_image)


def test_folders_of_others_are_left_alone(tmp_path):
    check_free(tmp_path / "new", overwrite=False)
    (tmp_path / "theirs").mkdir()
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"exists already; choose another --out$"):
            check_free(tmp_path / "theirs", overwrite=overwrite)
