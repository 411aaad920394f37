"""A prepared data set of two kinds of fields whose stain shows nuclei, made by code."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from isl_jax.data.preparation import prepare
from isl_jax.data.store import Dataset, open_dataset
from isl_jax.ingest.checked import check_fields, recipe_of
from isl_jax.ingest.discovery import match_files
from isl_jax.ingest.layouts import Layout, Role

LAYOUT = Layout(
    pattern="{field}_{channel}{suffix}",
    inputs=(Role("phase"), Role("phase")),
    stain=Role("nuclei"),
    labels=("masks",),
    study="nucleus",
)
SIZE = (160, 192)


def draw_field(seed: int, *, coarse: bool, nuclei: int) -> dict[str, np.ndarray]:
    """Disks on a grid; the label-free image is noise over them, fine, or fine and very coarse."""
    rng = np.random.default_rng(seed)
    masks = np.zeros(SIZE, np.uint16)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for label in range(1, nuclei + 1):
        y, x = 20 + 30 * ((label - 1) // 6), 18 + 30 * ((label - 1) % 6)
        masks[(rows - y) ** 2 + (columns - x) ** 2 <= 9**2] = label
    stain = 200 + 800 * ndimage.gaussian_filter((masks > 0).astype(float), 1.2)
    fine, wide = (ndimage.gaussian_filter(rng.normal(size=SIZE), s) for s in (1.5, 16))
    texture = fine / fine.std() + 2 * coarse * wide / wide.std()
    phase = 1000 + 100 * texture + 50 * (masks > 0)
    noise = rng.normal(0, 5, (2, *SIZE))
    return {
        "phase": (phase + noise[0]).astype(np.uint16),
        "nuclei": (stain + noise[1]).astype(np.uint16),
        "masks": masks,
    }


# Field → kind and number of nuclei.
FIELDS = {
    "f1": (False, 12),
    "f2": (False, 20),
    "f3": (False, 16),
    "c1": (True, 10),
    "c2": (True, 18),
}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """`f1`–`f3` fine and `c1`, `c2` coarse, to train on; `t` tests; `f3` alone has labels."""
    root = tmp_path_factory.mktemp("annotate")
    raw = root / "raw"
    raw.mkdir()
    for seed, (name, (coarse, nuclei)) in enumerate({**FIELDS, "t": (False, 12)}.items()):
        for channel, image in draw_field(seed, coarse=coarse, nuclei=nuclei).items():
            if channel != "masks" or name == "f3":
                tifffile.imwrite(raw / f"{name}_{channel}.tif", image)
    fields, _ = match_files(raw, LAYOUT)
    split_of = {field.name: "test" if field.name == "t" else "train" for field in fields}
    recipe = recipe_of(LAYOUT, source=str(raw))
    return prepare(check_fields(fields, LAYOUT), split_of, root / "data", recipe)


@pytest.fixture
def dataset(prepared, tmp_path) -> Dataset:
    """A copy of `prepared` that a test may change."""
    shutil.copytree(prepared, tmp_path / "data")
    return open_dataset(tmp_path / "data")
