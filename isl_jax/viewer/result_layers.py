"""The layers of a prediction in a viewer: image, maps, labels, and what was drawn into these."""

from typing import Any

import numpy as np

from isl_jax.inference.model import Prediction
from isl_jax.viewer.layers import Place, contrast
from isl_jax.viewer.predicting import Predicted

_MAPS: dict[str, dict[str, Any]] = {
    "stain": {"colormap": "cyan", "blending": "additive"},
    "distance": {"colormap": "magma", "visible": False},
    "probability": {"colormap": "viridis", "visible": False, "contrast_limits": (0.0, 1.0)},
}


class ResultLayers:
    """Shows one image's prediction in `viewer`, and knows whether its labels were corrected."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._name = ""
        self._where: dict[str, Any] = {}
        self._made: np.ndarray | None = None

    def show(self, found: Predicted, place: Place | None) -> None:
        """Layers of the maps where the image lies; without a place the image is shown, too."""
        image = found.image
        self._name, self._made = image.name, None
        where = place.binned(image.binning) if place else Place.of(image.spacing, image.binning)
        self._where = where.shown()
        if place is None and image.planes is not None:
            self._show_planes(found)
        for name, plane in zip(found.info.task.map_names, found.maps, strict=True):
            self._put("image", name, plane, {"contrast_limits": contrast(plane)} | _MAPS[name])

    def _show_planes(self, found: Predicted) -> None:
        planes, channels = found.image.planes, found.info.channels
        first = {name: index for index, name in reversed([*enumerate(channels)])}
        for channel, index in sorted(first.items(), key=lambda item: item[1]):
            assert planes is not None
            plane = np.asarray(planes[index : index + 1, :, :][0])
            shown = {"contrast_limits": contrast(plane), "visible": index == 0}
            self._put("image", channel, plane, shown)

    def show_labels(self, prediction: Prediction) -> None:
        """The labels, in the place of those before; what was drawn by hand is kept beside them."""
        assert prediction.labels is not None
        if self.is_corrected:
            layer = self._labels_layer()
            layer.name = f"{layer.name} corrected"
        self._made = prediction.labels
        self._put("labels", "labels", prediction.labels.copy(), {})

    def _put(self, kind: str, name: str, pixels: np.ndarray, shown: dict[str, Any]) -> None:
        """A layer of the image, in the place of the one before of that name."""
        title = f"{self._name} {name}"
        if title in self._viewer.layers:
            layer = self._viewer.layers[title]
            # Plugins are given a proxy, whose type is its own.
            if layer.data.shape == pixels.shape and layer.__class__.__name__.lower() == kind:
                layer.data = pixels
                return
            self._viewer.layers.remove(title)
        add = self._viewer.add_labels if kind == "labels" else self._viewer.add_image
        add(pixels, name=title, **self._where, **shown)

    def _labels_layer(self) -> Any:
        title = f"{self._name} labels"
        return self._viewer.layers[title] if title in self._viewer.layers else None  # noqa: SIM401

    @property
    def labels(self) -> np.ndarray | None:
        """The labels as they stand in the viewer, int32 `[H, W]`; None where there are none."""
        layer = self._labels_layer()
        return None if layer is None else np.asarray(layer.data, np.int32)

    @property
    def is_corrected(self) -> bool:
        """Whether somebody has drawn into the labels since they were made."""
        labels = self.labels
        if labels is None or self._made is None:
            return False
        return not np.array_equal(self._made, labels)
