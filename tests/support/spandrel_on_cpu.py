"""Makes spandrel importable with the CPU build of torch.

spandrel imports torchvision. The torchvision wheel on PyPI needs the CUDA build of torch; with the CPU build, two
operators are missing at import. This module is not needed if torchvision comes from the same index as torch.
"""

import torch

BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare() -> None:
    """Declare the missing operators; call this once, before spandrel is imported."""
    if not torch.cuda.is_available():
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", BOXES)
