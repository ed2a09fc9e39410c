"""Distils Real-ESRGAN x4plus into a small network: `photo`, sharp, at a fourteenth of the cost of its teacher.

    upres models pull realesrgan-x4plus --out teacher
    python -m upres.models.distill --teacher teacher --start models/faithful/1 --photos FOLDER --out photo --version 1

The input patches are degraded like images of users (models/degrade.py). The student first learns the pixels of the
teacher, then also to deceive a discriminator whose real images are the teacher's. For factor 2 the side of the output
of the teacher is halved.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from upres.core.errors import ModelError
from upres.models import folder, training
from upres.models.degrade import degrade
from upres.models.discriminator import Discriminator, feature_matching_loss
from upres.models.folder import NewNetwork, photo
from upres.models.photos import Photos
from upres.models.training import Average
from upres.worker.engine.networks import EDSR, SuperResolutionNetwork, load
from upres.worker.model import Model, open_folder

WIDTH, DEPTH, TEACHERS_FACTOR = 64, 16, 4
RATE, DISCRIMINATOR_RATE = 5e-4, 2e-4
ADVERSARY_FROM = 0.5
"""Share of the training time after which the adversarial loss is used; the discriminator trains a tenth earlier."""
MATCHING_WEIGHT, ADVERSARY_WEIGHT = 0.05, 0.005
"""Weights of the feature matching and adversarial losses; the weight of the pixel loss is 1."""
REPORT_SECONDS = 30
DESCRIPTION = "Sharp: Real-ESRGAN x4plus, distilled into a network a fourteenth its size. Invents detail."


class Distillation:
    """Student, teacher and discriminator on one device."""

    def __init__(self, teacher: Model, factor: int, tensors: dict[str, Tensor], on: torch.device) -> None:
        self.factor = factor
        half = torch.float16 if on.type == "cuda" else torch.float32
        self._teacher = training.place(load(teacher.manifest.networks[0], teacher), on, half)
        self._half = half
        student = EDSR(factor, WIDTH, DEPTH)
        training.initialise(student)
        training.copy_matching(student, tensors)
        self.student = training.place(student, on)
        self.average = Average(self.student, most=0.999)
        self._critic = training.place(Discriminator(), on)
        self._run = training.compiled(self.student, on)
        self.optimiser = torch.optim.Adam(self.student.parameters(), lr=RATE, betas=(0.9, 0.99))
        self._critics = torch.optim.Adam(self._critic.parameters(), lr=DISCRIMINATOR_RATE, betas=(0.9, 0.99))
        self._on = on

    def step(self, small: Tensor, done: float) -> Tensor:
        """One step of student and discriminator; `done` is in [0, 1). Returns the pixel loss."""
        goal = self.goal(small)
        with training.bfloat16(self._on):
            made = self._run(small)
        made = made.float()
        pixels = training.charbonnier(made, goal)
        loss = pixels + (self._deceive(made, goal) if done > ADVERSARY_FROM else 0)
        training.optimiser_step(loss, self.optimiser)
        self.average.follow(self.student)
        if done > ADVERSARY_FROM - 0.1:
            self._learn_to_tell(made.detach(), goal)
        return pixels.detach()

    @torch.no_grad()
    def goal(self, small: Tensor) -> Tensor:
        """The teacher's output for the patches `small`, averaged down to the student's factor."""
        made = self._teacher(small.to(self._half)).float().clamp(0, 1)
        return made if self.factor == TEACHERS_FACTOR else functional.avg_pool2d(made, TEACHERS_FACTOR // self.factor)

    def _deceive(self, made: Tensor, goal: Tensor) -> Tensor:
        self._critic.requires_grad_(False)
        with training.bfloat16(self._on):
            found = self._critic(made)
            with torch.no_grad():
                wanted = self._critic(goal)
        self._critic.requires_grad_(True)
        fooled = functional.softplus(-found.logits.float()).mean()
        return MATCHING_WEIGHT * feature_matching_loss(found.features, wanted.features) + ADVERSARY_WEIGHT * fooled

    def _learn_to_tell(self, made: Tensor, goal: Tensor) -> None:
        with training.bfloat16(self._on):
            real, fake = self._critic(goal).logits, self._critic(made).logits
        loss = functional.softplus(-real.float()).mean() + functional.softplus(fake.float()).mean()
        training.optimiser_step(loss, self._critics)


def main() -> int:
    """Run the distillation; returns 1 after printing an error."""
    options = _options()
    try:
        photos, teacher, start = (
            Photos.load(options.photos, training.device()),
            open_folder(options.teacher),
            open_folder(options.start),
        )
        made = []
        for factor, seconds in zip(options.factors, options.seconds, strict=True):
            file = next((one.file for one in start.manifest.networks if one.factor == factor), None)
            tensors = load_file(start.files[file or start.manifest.networks[0].file])
            student = distil(Distillation(teacher, factor, tensors, photos.pixels.device), photos, seconds, options)
            made.append(_made(student, factor))
        about = {"name": "photo", "version": options.version, "licence": "BSD-3-Clause", "description": DESCRIPTION}
        print(f"{folder.write(options.out, about, made)} is in {options.out}")
    except ModelError as error:
        print(f"distill: {error}", file=sys.stderr)
        return 1
    return 0


def distil(run: Distillation, photos: Photos, seconds: float, options: argparse.Namespace) -> SuperResolutionNetwork:
    """Train a student for `seconds`; returns its averaged weights. Prints the pixel loss every REPORT_SECONDS."""
    last_report, count = time.monotonic(), 0
    for done in training.steps(run.optimiser, RATE, seconds):
        small = degrade(photos.large(options.batch, options.patch * run.factor), run.factor)
        pixels = run.step(small, done)
        count += 1
        if time.monotonic() - last_report > REPORT_SECONDS:
            last_report = time.monotonic()
            print(f"x{run.factor} {done:4.0%} step {count} distance {pixels.item():.5f}", flush=True)
            _show(run, options.pictures)
    _show(run, options.pictures)
    print(f"x{run.factor} done, {count} steps", flush=True)
    return run.average.network


@torch.no_grad()
def _show(run: Distillation, pictures: Path | None) -> None:
    """Write bicubic, student and teacher side by side as a PNG file, for visual comparison."""
    if pictures is None:
        return
    pictures.mkdir(parents=True, exist_ok=True)
    pixels = photo(96, 96)
    on = next(run.student.parameters()).device
    small = torch.from_numpy(pixels).to(on).permute(2, 0, 1)[None].float() / 255
    goal = (run.goal(small)[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    size = (96 * run.factor, 96 * run.factor)
    bicubic = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    made = training.upscale(run.average.network, pixels)
    Image.fromarray(np.concatenate([bicubic, made, goal], 1)).save(pictures / f"x{run.factor}.png")


def _made(student: SuperResolutionNetwork, factor: int) -> NewNetwork:
    fields = {
        "architecture": "edsr",
        "parameters": {"width": WIDTH, "depth": DEPTH},
        "factor": factor,
        "receptive_radius": 2 * DEPTH + 3,
    }
    return NewNetwork(fields, {name: tensor.contiguous().cpu() for name, tensor in student.state_dict().items()})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m upres.models.distill", description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, required=True, help="folder of a version of realesrgan-x4plus")
    parser.add_argument("--start", type=Path, required=True, help="folder of a version to start from, such as faithful")
    parser.add_argument("--pictures", type=Path, help="folder for comparison images during training")
    parser.add_argument("--batch", type=int, default=32, help="patches per step")
    return training.parse(parser)


if __name__ == "__main__":
    sys.exit(main())
