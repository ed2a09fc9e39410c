"""Makes spandrel importable with the CPU build of torch.

spandrel imports torchvision. The torchvision wheel on PyPI needs the CUDA build of torch; with the CPU build, two
operators are missing at import. This module is not needed if torchvision comes from the same index as torch.
"""

from functools import cache
from importlib.metadata import version

import torch

BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@cache
def declare() -> None:
    """Declare the missing operators, once; call this before spandrel is imported.

    Where torchvision has them, a second declaration would end the process.
    """
    if version("torch").endswith("+cpu") and not version("torchvision").endswith("+cpu"):
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", BOXES)
