"""The answers of a teacher: degraded patches of photos, and what the teacher makes of them.

A teacher is many times slower than its student, so its answers are computed once and stored; each training draws
smaller patches from them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from upres.core.errors import ModelError
from upres.models import training
from upres.models.degrade import degrade
from upres.models.photos import Photos
from upres.worker.engine.loading import load
from upres.worker.model import Model

FACTOR = 4
"""Factor of the teacher."""
SIDE = 64
"""Side of the degraded patches in pixels."""
BORDER = 2
"""Pixels at the border of these patches that no training uses: the teacher saw no neighbours there."""
BATCH = {"cuda": 64, "cpu": 4}


class Answers(NamedTuple):
    """Patches and answers, uint8 in [0, 255]."""

    small: Tensor
    """Degraded patches, (count, 3, SIDE, SIDE)."""
    large: Tensor
    """The teacher's answers, (count, 3, SIDE·FACTOR, SIDE·FACTOR)."""

    @classmethod
    def load(cls, files: Sequence[Path], on: torch.device) -> "Answers":
        """Read files that `save` wrote. Raises ModelError when one is missing or something else."""
        parts = []
        for file in files:
            try:
                with np.load(file) as stored:
                    parts.append(tuple(torch.from_numpy(stored[name]).to(on) for name in ("lr", "sr")))
            except (OSError, ValueError, KeyError) as error:
                raise ModelError(f"{file} has no answers of a teacher ({error}).") from error
        return cls(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def save(self, file: Path) -> None:
        """Write patches and answers to one .npz file."""
        np.savez(file, lr=self.small.cpu().numpy(), sr=self.large.cpu().numpy())

    def batch(self, count: int, side: int, factor: int) -> tuple[Tensor, Tensor]:
        """Random patches, (count, 3, side, side), and the answers averaged down to a factor; float in [0, 1].

        Each patch is in one random of the eight orientations of a square. `factor` is FACTOR, or a divisor of it.
        """
        small, large = [], []
        for number in torch.randint(len(self.small), (count,)).tolist():
            top, left = torch.randint(BORDER, SIDE - BORDER - side + 1, (2,)).tolist()
            turn = int(torch.randint(8, ()))
            small.append(_turned(_cut(self.small[number], top, left, side), turn))
            large.append(_turned(_cut(self.large[number], top * FACTOR, left * FACTOR, side * FACTOR), turn))
        patches, goals = (torch.stack(parts).float() / 255 for parts in (small, large))
        goals = goals if factor == FACTOR else functional.avg_pool2d(goals, FACTOR // factor)
        return patches.contiguous(memory_format=torch.channels_last), goals


@torch.inference_mode()
def make(teacher: Model, photos: Photos, count: int, report: Callable[[int], None]) -> Answers:
    """Degrade `count` random patches and let the teacher answer; `report` is called with the number that is done."""
    on = photos.pixels.device
    half = torch.float16 if on.type == "cuda" else torch.bfloat16
    network = training.place(load(teacher.manifest.networks[0], teacher), on, half)
    small, large, done = [], [], 0
    while done < count:
        patches = degrade(photos.large(min(BATCH[on.type], count - done), SIDE * FACTOR), FACTOR)
        answers = network(patches.to(half)).float().clamp(0, 1)
        small.append((patches * 255).round().byte().cpu())
        large.append((answers * 255).round().byte().cpu())
        done += len(patches)
        report(done)
    return Answers(torch.cat(small), torch.cat(large))


def _cut(patch: Tensor, top: int, left: int, side: int) -> Tensor:
    return patch[:, top : top + side, left : left + side]


def _turned(patch: Tensor, turn: int) -> Tensor:
    """The patch in orientation 0 to 7."""
    if turn & 1:
        patch = patch.flip(-2)
    if turn & 2:
        patch = patch.flip(-1)
    return patch.transpose(-1, -2) if turn & 4 else patch
