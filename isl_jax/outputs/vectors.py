"""Outlines in the files that ImageJ and QuPath open."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import roifile

from isl_jax.files import written_whole


def write_rois(path: Path, polygons: Sequence[np.ndarray]) -> None:
    """Write polygons `[V, 2]` (x, y) as a zip of ImageJ regions, named by the objects' ids."""
    regions = []
    for label, polygon in enumerate(polygons, 1):
        region = roifile.ImagejRoi.frompoints(polygon, name=f"{label:05d}")
        region.roitype = roifile.ROI_TYPE.POLYGON
        regions.append(region)
    with written_whole(path) as draft:
        if regions:
            roifile.roiwrite(draft, regions)
        else:
            draft.write_bytes(_EMPTY_ZIP)


def write_geojson(path: Path, polygons: Sequence[np.ndarray]) -> None:
    """Write polygons `[V, 2]` (x, y) as GeoJSON that QuPath imports: one detection an object."""
    features = [
        {
            "type": "Feature",
            "id": str(label),
            "geometry": {
                "type": "Polygon",
                # GeoJSON wants rings closed.
                "coordinates": [[*polygon.tolist(), polygon[0].tolist()]],
            },
            "properties": {"objectType": "detection", "name": str(label)},
        }
        for label, polygon in enumerate(polygons, 1)
    ]
    collection = {"type": "FeatureCollection", "features": features}
    with written_whole(path) as draft:
        draft.write_text(json.dumps(collection, separators=(",", ":")) + "\n")


# An archive without members: its end record alone.
_EMPTY_ZIP = b"PK\x05\x06" + bytes(18)
