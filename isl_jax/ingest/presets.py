"""Layouts known by name: the paper's data sets, common tools and public sets; and layout files."""

import json
import runpy
import tomllib
from collections.abc import Mapping
from pathlib import Path

from isl_jax.ingest.layouts import (
    ANY_IMAGE,
    OPERA_INDEX,
    Layout,
    Role,
    layout_from_options,
    parse_roles,
)

PRESETS: Mapping[str, Layout] = {
    # Opera Phenix exports: ch1 phase contrast, ch4 DAPI, ch5 bright field.
    "dataset1": Layout(
        pattern=r"(?P<field>.+)_(?P<channel>ch\d+|cellpose)" + ANY_IMAGE,
        inputs=parse_roles("ch5[1,2],ch1:max"),
        stain=Role("ch4", projection="max"),
        labels=("cellpose",),
        study="nucleus",
    ),
    # MetaMorph: every second DIC plane, CellMask in Cy5.
    "dataset2": Layout(
        pattern=r"(?P<field>.+)_(?P<channel>w\d[^_]*|cell_instance)_(?P<field_2>.+?)" + ANY_IMAGE,
        inputs=parse_roles("w5DIC-oil-40x[0,2,4]"),
        stain=Role("w4Cy5", projection="focus"),
        labels=("cell_instance",),
        study="cell",
    ),
    "folder": Layout(pattern="{field}_{channel}{suffix}"),
    # Channels and planes of data set 1, as the microscope itself exports them.
    "opera": Layout(
        pattern=OPERA_INDEX,
        inputs=parse_roles("ch5[1,2],ch1:max"),
        stain=Role("ch4", projection="max"),
        labels=("cellpose",),
        group=r"r\d+c\d+",
        study="nucleus",
    ),
    # X.tif beside X_masks.tif, X_cp_masks.png or X_seg.npy; channels by number inside X.tif. What
    # else Cellpose leaves beside X (flows, outlines, pictures) is no image.
    "cellpose": Layout(
        pattern=r"(?P<field>.+?)(?:_(?P<channel>masks|cp_masks|seg))?" + ANY_IMAGE,
        inputs=(Role("0"),),
        labels=("masks", "cp_masks", "seg"),
    ),
    # images/X.tif beside masks/X.tif.
    "stardist": Layout(
        pattern=r"(?:(?P<field>.+)/)?(?:images|(?P<channel>masks))/(?P<field_2>.+?)" + ANY_IMAGE,
        inputs=(Role("0"),),
        labels=("masks",),
    ),
    # One OME-Zarr image a field, or plates of them; labels stored inside go by their names.
    "omezarr": Layout(
        pattern=r"(?P<field>.+?)(?:\.ome)?\.zarr(?:/(?P<field_2>.+))?", inputs=(Role("0"),)
    ),
    # CovertLab/DeepCell, Van Valen et al. 2016. Masks of nuclei are kept apart from the images they
    # were drawn on, without a word which: nuclei/set3 and RAW40X/set4 were seen to fit the sets
    # named here, RAW40X/set5 is what is left for RAW40X/set2. Other `nuclei` (no label-free image)
    # and the plating series (channels without names) are left out.
    "deepcell2016": Layout(
        pattern=r"(?P<field>.+)/(?P<channel>phase|nuclei|cytoplasm|(?:cell|nucleus)_(?:edge|interior))"
        + ANY_IMAGE,
        inputs=parse_roles("phase,phase,phase"),
        stain=Role("nuclei"),
        labels=("cell_interior+cell_edge",),
        # HeLa_joint sets 2 and 4 show the same cells, moved by 299 × 63 pixels, so they are one
        # group. (Seen on converted copies; set 4 known among them by its size.)
        group=r"HeLa_joint_set(?=[24]$)|.+",
        renames=(
            (r"^training_data/", ""),
            (r"^(testing|validation)_data/", r"\1/"),
            (r"^nuclei/set3/feature_", "HeLa_joint/set1/nucleus_feature_"),
            (r"^RAW40X/set4/feature_", "RAW40X/set1/nucleus_feature_"),
            (r"^RAW40X/set5/feature_", "RAW40X/set2/nucleus_feature_"),
            (r"^(?:validation/)?nuclei/.*", ""),
            (r"/(?:RawImages|Validation)/", "/"),
            (r"/img_\d+_([\w-]+)_\d+\.", r"/\1."),
            (r"/Phase\.", "/phase."),
            (r"/(?:nuclear|DAPI|dapi|Far-red|farred)\.", "/nuclei."),
            (r"/TRITC\.", "/cytoplasm."),
            (r"/\w+_validation_(edge|interior)\.", r"/cell_\1."),
            (r"/nucleus_feature_0\.", "/nucleus_edge."),
            (r"/nucleus_feature_1\.", "/nucleus_interior."),
            (r"/feature_0\.", "/cell_edge."),
            (r"/feature_1\.", "/cell_interior."),
        ),
    ),
    # bethcg/aiSEGcell, source data by figure; frames of one position stay together. Figures whose
    # channels are not named, and masks that a network drew, are left out.
    "aisegcell": Layout(
        pattern=r"(?:.+/)?(?P<field>(?:suppl_)?fig\d+)/"
        r"(?P<channel>brightfield|cytoplasm|nuclei|nucleus_masks)/(?P<field_2>[^/]+?)" + ANY_IMAGE,
        inputs=parse_roles("brightfield,brightfield,brightfield"),
        stain=Role("nuclei"),
        labels=("nucleus_masks:components",),
        study="nucleus",
        group=r"\w+_p\d+",
        renames=(
            (r"(fig3)/(?:[a-g]/)?(?:images|brightfield)/", r"\1/brightfield/"),
            (r"(fig3)/(?:[a-g]/)?(?:nuc|nucleus)/", r"\1/nuclei/"),
            (r"(fig3)/(?:[a-g]/)?gt/", r"\1/nucleus_masks/"),
            (r"(fig4)/a/data/(\w+)_w00\.", r"\1/brightfield/\2."),
            (r"(fig4)/a/data/(\w+)_w01\.", r"\1/cytoplasm/\2."),
            (r"(fig4)/a/data/(\w+)_w02\.", r"\1/nuclei/\2."),
        ),
    ),
    # oist/Usiigaci: T98G cells, no stain.
    "usiigaci": Layout(
        pattern=r"(?:.+/)?(?P<field>(?:train|val)/set\d+)/(?P<channel>raw|instances_ids)"
        + ANY_IMAGE,
        inputs=parse_roles("raw,raw,raw"),
        labels=("instances_ids",),
    ),
}


def load_layout(name: str) -> Layout:
    """A preset by name, or the layout of a .py (variable `layout`), .json or .toml file."""
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if path.suffix not in (".py", ".json", ".toml") or not path.is_file():
        raise ValueError(
            f"layout {name!r} is neither a preset ({', '.join(PRESETS)}) nor an existing .py, "
            ".json or .toml file"
        )
    if path.suffix == ".py":
        layout = runpy.run_path(str(path)).get("layout")
        if not isinstance(layout, Layout):
            raise ValueError(f"{path}: defines no variable `layout` of type Layout")
        return layout
    try:
        text = path.read_text(encoding="utf-8")
        options = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not valid {path.suffix[1:]} ({error})") from None
    try:
        layout = layout_from_options(options, source=str(path))
        layout.regex()  # what is wrong with the pattern is told here, where the file is known
        return layout
    except ValueError as error:
        told = str(error)
        raise ValueError(told if str(path) in told else f"{path}: {told}") from None
