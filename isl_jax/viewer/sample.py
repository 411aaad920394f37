"""Sample data: one simulated field, whose truth is known."""

import numpy as np

from isl_jax.simulate import simulate_field, simulation
from isl_jax.viewer.layers import Channel, FieldOfView, LayerData, Place, stacked

_SIZE = 512
_SEED = 0
# Planes of the DIC stack that are an image for a network, as the layout of the study has it.
_DIC = slice(None, None, 2)


def simulated_cells() -> list[LayerData]:
    """Cells in DIC, three focal planes, with the stain of their membranes and the true cells."""
    parameters = simulation("cell", size=_SIZE, seed=_SEED)
    field = simulate_field(parameters, 0)
    planes = field.channels["dic"][_DIC]
    side = parameters.optics.pixel_size_um
    found = [
        Channel(f"dic {number}", lambda _, plane=plane: plane, visible=number == 1)
        for number, plane in enumerate(planes)
    ]
    stain = field.channels["membrane"].max(axis=0)
    found.append(Channel("membrane", lambda _: stain, colormap="cyan", visible=False))
    cells = np.asarray(field.cells, np.int32)
    found.append(Channel("cells", lambda _: cells, kind="labels", visible=False))
    view = FieldOfView("simulated", (_SIZE, _SIZE))
    return stacked([view], found, Place.of((side, side)))
