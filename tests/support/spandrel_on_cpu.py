"""spandrel imports torchvision, whose published wheel wants CUDA's torch; on a CPU's it lacks two operators at import.

Whoever installs torchvision from where they got torch needs none of it.
"""

import torch

BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare() -> None:
    """Once, before spandrel is imported."""
    if not torch.cuda.is_available():
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", BOXES)
