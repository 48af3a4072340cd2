"""Boxes -> masks of what is in them, by SAM of transformers.

An extra for pictures that are looked at: SPHINX gives boxes, and a model of segmentation finds the outline
inside. Any folder that transformers' ``SamModel`` and its processor load from will do.

Dimensions: N boxes, H x W the picture.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from llama_adapter.errors import UserError
from llama_adapter.lazy import needed
from sphinx_ft.boxes import Mark, corners


class BoxMasks:
    """Finds masks with one model of SAM."""

    def __init__(self, folder: str | Path, device: str = "cpu") -> None:
        """Loads the model.

        Args:
            folder: a model's folder, or its name on the hub.
            device: where it runs.

        Raises:
            UserError: there is no such model.
        """
        transformers = needed("transformers", "transformers")
        try:
            self.model = transformers.SamModel.from_pretrained(str(folder)).eval().to(device)
            self.processor = transformers.SamProcessor.from_pretrained(str(folder))
        except (OSError, ValueError) as error:
            raise UserError(
                f"masks is {str(folder)!r}, where no SAM is found: {str(error).splitlines()[0]} "
                "Use a folder or name such as facebook/sam-vit-base."
            ) from error

    @torch.no_grad()
    def __call__(self, picture: Any, marks: Sequence[Mark]) -> Bool[np.ndarray, "N H W"]:
        """A mask for each mark; for points, and boxes without extent, an empty one.

        Args:
            picture: a ``PIL.Image``.
            marks: in its pixels.
        """
        found = np.zeros((len(marks), picture.height, picture.width), dtype=bool)
        rows = [row for row, mark in enumerate(marks) if mark.is_box and _area(mark) > 0]
        if not rows:
            return found
        boxes = [list(corners(marks[row].place)) for row in rows]
        inputs = self.processor(picture, input_boxes=[boxes], return_tensors="pt")
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        inputs = {
            name: value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        logits = self.model(**inputs, multimask_output=False).pred_masks
        (masks,) = self.processor.post_process_masks(logits.float().cpu(), *sizes)
        found[rows] = masks[:, 0].numpy()
        return found


def _area(mark: Mark) -> float:
    """Of a box."""
    left, top, right, bottom = corners(mark.place)
    return max(right - left, 0.0) * max(bottom - top, 0.0)
