"""spandrel imports torchvision, whose published wheel wants CUDA's torch; on a CPU's it lacks two operators at import.

Imported before spandrel, this declares them. Whoever installs torchvision from where they got torch needs none of it.
"""

import torch

BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

if not torch.cuda.is_available():
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", BOXES)
