"""Losses of a training as a drawing: a line for each stage, dots for the validation."""

import math
from collections.abc import Sequence

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from isl_jax.viewer.watching import Curve, Stage

_COLOURS = (QColor("#4fc3f7"), QColor("#ffb74d"))
_GREY = QColor("#888888")
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 18, 18
# More points than this are averaged in groups, as no screen has more pixels.
_MOST_POINTS = 400


class LossCurves(QWidget):
    """Loss over steps, on a logarithmic axis; the stages one above the other, each with its own."""

    def __init__(self) -> None:
        super().__init__()
        self._stages: Sequence[Stage] = ()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Room for both."""
        return QSize(300, 110 * max(1, len(self._stages)))

    def show_stages(self, stages: Sequence[Stage]) -> None:
        """Draw those that have begun."""
        self._stages = [stage for stage in stages if stage.losses]
        self.setFixedHeight(self.sizeHint().height() if self._stages else 0)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        """Draw."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        height = self.height() / max(1, len(self._stages))
        for number, stage in enumerate(self._stages):
            top = number * height
            area = QRectF(_LEFT, top + _TOP, self.width() - _LEFT - _RIGHT, height - _TOP - _BOTTOM)
            self._draw(painter, stage, area, _COLOURS[number % len(_COLOURS)])
        painter.end()

    def _draw(self, painter: QPainter, stage: Stage, area: QRectF, colour: QColor) -> None:
        losses, dots = thinned(stage.losses), stage.validation
        values = [loss for _, loss in (*losses, *dots) if loss > 0]
        if not values:
            return
        low, high = math.log10(min(values)), math.log10(max(values))
        high = max(high, low + 0.01)
        last = max(stage.num_steps or 0, losses[-1][0], 1)

        def at(step: float, loss: float) -> QPointF:
            share = (math.log10(max(loss, 10**low)) - low) / (high - low)
            return QPointF(
                area.left() + area.width() * step / last, area.bottom() - area.height() * share
            )

        painter.setPen(QPen(_GREY, 1))
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        painter.drawLine(area.bottomLeft(), area.topLeft())
        for level, y in ((high, area.top()), (low, area.bottom())):
            box = QRectF(0, y - 8, _LEFT - 4, 16)
            painter.drawText(box, Qt.AlignmentFlag.AlignRight, f"{10**level:.2g}")
        painter.drawText(QPointF(area.left() + 4, area.top() - 5), f"loss, {stage.name}")
        below = QRectF(area.left(), area.bottom() + 1, area.width(), 16)
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, f"step {last:g}")
        painter.setPen(QPen(colour, 1.5))
        painter.drawPolyline(QPolygonF([at(*point) for point in losses]))
        painter.setBrush(colour)
        for point in dots:
            painter.drawEllipse(at(*point), 3, 3)
        painter.setBrush(Qt.BrushStyle.NoBrush)


def thinned(curve: Curve) -> Curve:
    """At most a few hundred points, each the mean of its neighbours."""
    size = math.ceil(len(curve) / _MOST_POINTS)
    groups = [curve[start : start + size] for start in range(0, len(curve), max(size, 1))]
    return [
        (group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups if group
    ]
