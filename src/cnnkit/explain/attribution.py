"""An attribution: which pixels of an image an answer depends on, as numbers and as an image."""

import base64
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from cnnkit.core.shape import by
from cnnkit.core.text import html
from cnnkit.explain.methods import METHODS
from cnnkit.explain.placement import Box
from cnnkit.figures import heat_overlay, html_table

__all__ = ["Attribution"]

SHOWN, QUALITY = 192, 80  # in a notebook: pixels of the longer side, quality of the JPEG; noise stays below 50 kB


@dataclass(frozen=True, eq=False)
class Attribution:
    """The heat of an image for one class, at the image's own size."""

    method: str
    layer: str | None
    """The layer whose map was weighed; None for methods that explain without one."""
    target: int
    label: str
    """The class's name; without names its number."""
    probability: float
    heat: np.ndarray
    """float32 H x W; not negative for Grad-CAM, signed otherwise. 0 where preprocessing crops the image."""
    image: np.ndarray
    """uint8 H x W x C."""
    strongest: tuple[int, int] | None
    """Row and column of the largest heat; None if no heat is positive."""
    receptive: Box | None
    """The pixels that the strongest element of the layer's map depends on; None if there is none or it is unknown."""

    def overlay(self) -> Image.Image:
        """Return the image in grey with the heat over it and a frame around `receptive`: RGB, the image's own size."""
        return heat_overlay(self.image, self.heat, signed=METHODS[self.method].signed, box=self.receptive)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data; rows and columns are of the image, `bottom` and `right` exclusive."""
        height, width = self.heat.shape
        return {
            "method": self.method,
            "layer": self.layer,
            "class": self.label,
            "target": self.target,
            "probability": self.probability,
            "height": height,
            "width": width,
            "heat": {"min": float(self.heat.min()), "max": float(self.heat.max()), "sum": float(self.heat.sum())},
            "strongest": self.strongest and dict(zip(("row", "column"), self.strongest, strict=True)),
            "receptive_field": self.receptive and self.receptive._asdict(),
        }

    def __repr__(self) -> str:
        layer = f" at {self.layer}" if self.layer else ""
        return f"Attribution({self.method}{layer}: {self.label} {self.probability:.1%}, {by(*self.heat.shape)})"

    def _repr_html_(self) -> str:
        drawn = self.overlay()
        scale = SHOWN / max(drawn.size)
        size = max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale))
        resample = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
        encoded = BytesIO()
        drawn.resize(size, resample).save(encoded, "JPEG", quality=QUALITY)
        source = base64.b64encode(encoded.getvalue()).decode()
        described = html(f"{self.method} for {self.label}")
        rows = [
            ("class", self.label),
            ("probability", f"{self.probability:.1%}"),
            ("method", self.method),
            *([("layer", self.layer)] if self.layer else []),
            *([("strongest at", f"row {self.strongest[0]}, column {self.strongest[1]}")] if self.strongest else []),
        ]
        image = f'<img alt="{described}" src="data:image/jpeg;base64,{source}">'
        return f"<div>{image}{html_table(('', ''), rows, text=2)}</div>"
