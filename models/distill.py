"""Distils Real-ESRGAN x4plus into a small network: `photo`, sharp, at a fourteenth of the cost of its teacher.

    upres models pull realesrgan-x4plus --out teacher
    python -m upres.models.distill answers --teacher teacher --photos FOLDER --out answers-1.npz --seed 1
    python -m upres.models.distill train --factor 4 --start models/faithful/1 --out x4 answers-*.npz
    python -m upres.models.distill train --factor 2 --start models/faithful/1 --trunk x4 --out x2 answers-*.npz
    python -m upres.models.distill version --start models/faithful/1 --out photo --version 1 --strength 0.5 x4 x2

The patches are degraded like images of users (models/degrade.py). The student first learns the pixels of the teacher,
then also to deceive a discriminator whose real images are the teacher's. It begins with the weights of --start and
stays near them, so that the weights of both can be interpolated. A training that is stopped continues when the same
command is given again.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from upres.core.errors import ModelError
from upres.models import answers, export, folder, training
from upres.models.answers import Answers
from upres.models.discriminator import Discriminator, feature_matching_loss
from upres.models.folder import NewNetwork
from upres.models.photos import Photos
from upres.models.training import Average
from upres.worker.engine.loading import load
from upres.worker.engine.networks import EDSR
from upres.worker.model import open_folder

WIDTH, DEPTH = 64, 16
RATE, DISCRIMINATOR_RATE = 4e-4, 2e-4
DISCRIMINATOR_WIDTH = 32
ADVERSARY_FROM = 0.5
"""Share of the steps after which the adversarial loss is used; the discriminator trains a twentieth earlier."""
MATCHING_WEIGHT, ADVERSARY_WEIGHT = 0.05, 0.005
"""Weights of the feature matching and adversarial losses; the weight of the pixel loss is 1."""
EDGE = 6
"""Pixels of a patch, at each side, that count in no loss: the student saw too few neighbours there."""
REPORT_SECONDS = 60
NAME = "photo"
DESCRIPTION = (
    "For photos as they are: removes noise and the traces of JPEG, and sharpens, as much as the strength says."
)
ORIGIN = "A student of Real-ESRGAN x4plus by Xintao Wang et al., github.com/xinntao/Real-ESRGAN"
STUDENT, STATE, CURVE = "student.safetensors", "state.pt", "curve.jsonl"
"""Files in the folder of a training: the averaged weights, all that is needed to continue, and the loss over time."""


class Distillation:
    """Student and discriminator on one device, and the state of their training."""

    def __init__(self, factor: int, tensors: dict[str, Tensor], on: torch.device) -> None:
        self.factor = factor
        student = EDSR(factor, WIDTH, DEPTH)
        training.initialise(student)
        training.copy_matching(student, tensors)
        self.student = training.place(student, on)
        self.average = Average(self.student, most=0.999)
        self._critic = training.place(Discriminator(DISCRIMINATOR_WIDTH), on)
        self._run = training.compiled(self.student, on)
        self._optimiser = torch.optim.Adam(self.student.parameters(), lr=RATE, betas=(0.9, 0.99))
        self._critics = torch.optim.Adam(self._critic.parameters(), lr=DISCRIMINATOR_RATE, betas=(0.9, 0.99))
        self._on = on
        self.steps = 0
        self.seconds = 0.0

    def step(self, small: Tensor, goal: Tensor, done: float) -> Tensor:
        """One step of student and discriminator; `done` is in [0, 1). Returns the pixel loss."""
        training.set_rate(self._optimiser, RATE, self.steps, done)
        edge = slice(EDGE * self.factor, -EDGE * self.factor)
        with training.bfloat16(self._on):
            made = self._run(small)
        made, goal = made.float()[..., edge, edge], goal[..., edge, edge]
        pixels = training.charbonnier(made, goal)
        loss = pixels + (self._deceive(made, goal) if done > ADVERSARY_FROM else 0)
        training.optimiser_step(loss, self._optimiser)
        self.average.follow(self.student)
        if done > ADVERSARY_FROM - 0.05:
            self._learn_to_tell(made.detach(), goal)
        self.steps += 1
        return pixels.detach()

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        modules = {name: module.state_dict() for name, module in self._modules().items()}
        return {**modules, "steps": self.steps, "seconds": self.seconds, "averaged": self.average.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where another run stopped."""
        for name, module in self._modules().items():
            module.load_state_dict(state[name])
        self.steps, self.seconds, self.average.steps = state["steps"], state["seconds"], state["averaged"]

    def _modules(self) -> dict[str, Any]:
        return {
            "student": self.student,
            "average": self.average.network,
            "discriminator": self._critic,
            "optimiser": self._optimiser,
            "discriminator_optimiser": self._critics,
        }

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
    """Run a command; returns 1 after printing an error."""
    options = _options()
    try:
        options.run(options)
    except ModelError as error:
        print(f"distill: {error}", file=sys.stderr)
        return 1
    return 0


def _answer(options: argparse.Namespace) -> None:
    """Compute the teacher's answers and store them."""
    torch.manual_seed(options.seed)
    teacher, photos = open_folder(options.teacher), Photos.load(options.photos, training.device())
    told = [0]

    def report(done: int) -> None:
        if done - told[0] >= 100 or done == options.count:
            told[0] = done
            print(f"{done} of {options.count} patches", flush=True)

    answers.make(teacher, photos, options.count, report).save(options.out)


def _train(options: argparse.Namespace) -> None:
    """Train a student, from the beginning or from where it was stopped."""
    on = training.device()
    run = Distillation(options.factor, _first_weights(options), on)
    options.out.mkdir(parents=True, exist_ok=True)
    if (options.out / STATE).exists():
        run.restore(torch.load(options.out / STATE, map_location=on, weights_only=True))
        print(f"continues after step {run.steps}", flush=True)
    taught = Answers.load(options.answers, on)
    losses: list[float] = []
    told = time.monotonic()
    while run.steps < options.steps:
        begin = time.monotonic()
        small, goal = taught.batch(options.batch, options.patch, options.factor)
        losses.append(run.step(small, goal, run.steps / options.steps).item())
        run.seconds += time.monotonic() - begin
        if time.monotonic() - told > REPORT_SECONDS or run.steps == options.steps:
            _keep(run, options.out, sum(losses) / len(losses))
            losses, told = [], time.monotonic()


def _first_weights(options: argparse.Namespace) -> dict[str, Tensor]:
    """The weights to begin with: those of --start, changed as another student's training changed the trunk."""
    start = open_folder(options.start)
    files = {one.factor: start.files[one.file] for one in start.manifest.networks}
    if options.factor not in files:
        raise ModelError(f"{start} has no network for factor {options.factor}.")
    tensors = load_file(options.weights or files[options.factor])
    if options.trunk:
        before, after = load_file(files[answers.FACTOR]), load_file(options.trunk / STUDENT)
        for name, tensor in tensors.items():
            if tensor.shape == after[name].shape:
                tensors[name] = tensor + after[name] - before[name]
    return tensors


def _keep(run: Distillation, folder: Path, loss: float) -> None:
    """Write the state, the averaged weights and a line of the curve; `loss` is the mean since the last line."""
    torch.save(run.state(), folder / f"{STATE}.new")
    os.replace(folder / f"{STATE}.new", folder / STATE)
    save_file(_averaged(run), folder / STUDENT)
    line = {"step": run.steps, "seconds": round(run.seconds), "distance": round(loss, 5)}
    with (folder / CURVE).open("a") as curve:
        curve.write(json.dumps(line) + "\n")
    print(line, flush=True)


def _averaged(run: Distillation) -> dict[str, Tensor]:
    return {name: tensor.contiguous().cpu() for name, tensor in run.average.network.state_dict().items()}


def _version(options: argparse.Namespace) -> None:
    """Write a version with the students' weights, in float16, and their ONNX graphs."""
    start = open_folder(options.start)
    mix = {"model": start.manifest.name, "version": start.manifest.version, "digest": start.digest}
    about = {"name": NAME, "version": options.version, "licence": "BSD-3-Clause", "description": DESCRIPTION}
    about |= {"origin": ORIGIN, "mix": {**mix, "strength": options.strength}}
    networks = []
    for student in options.students:
        tensors = load_file(student / STUDENT)
        factor = next(one for one in (2, 4) if len(tensors["tail.bias"]) == 3 * one**2)
        networks.append(NewNetwork(_fields(factor), {name: one.half() for name, one in tensors.items()}))
    own, described = folder.write(options.out, about, networks).at(1), []
    for network in own.manifest.networks:
        graph = options.out / f"{NAME}-x{network.factor}.onnx"
        export.export_network(export.Portable(load(network, own)).eval(), network.factor, "onnx", graph)
        described.append({**_fields(network.factor), "file": network.file, "graph": folder.described(graph)})
    print(f"{folder.describe(options.out, about, described)} is in {options.out}")


def _fields(factor: int) -> dict[str, Any]:
    return {
        "architecture": "edsr",
        "parameters": {"width": WIDTH, "depth": DEPTH},
        "factor": factor,
        "receptive_radius": 2 * DEPTH + 3,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m upres.models.distill", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="answers | train | version")
    answer = commands.add_parser("answers", help="compute the teacher's answers")
    answer.set_defaults(run=_answer)
    answer.add_argument("--teacher", type=Path, required=True, help="folder of a version of realesrgan-x4plus")
    answer.add_argument("--photos", type=Path, required=True, help="folder of photos to train on")
    answer.add_argument("--out", type=Path, required=True, help="file to write: NAME.npz")
    answer.add_argument("--count", type=int, default=1600, help="number of patches; default: 1600")
    answer.add_argument("--seed", type=int, default=1, help="seed of the random patches; default: 1")
    train = commands.add_parser("train", help="train a student for one factor, or continue")
    train.set_defaults(run=_train)
    train.add_argument("answers", type=Path, nargs="+", help="files with answers of the teacher")
    train.add_argument("--factor", type=int, choices=(2, 4), required=True)
    train.add_argument("--start", type=Path, required=True, help="folder of a version to start from, such as faithful")
    train.add_argument("--weights", type=Path, help="safetensors file to begin with, instead of the weights of --start")
    train.add_argument("--trunk", type=Path, help="folder of the training for factor 4, whose trunk is taken over")
    train.add_argument("--out", type=Path, required=True, help="folder for weights, state and curve of this training")
    train.add_argument("--steps", type=int, default=10_000, help="number of steps; default: 10000")
    train.add_argument("--batch", type=int, default=16, help="patches per step; default: 16")
    train.add_argument("--patch", type=int, default=48, help="side of the patches, a multiple of 8; default: 48")
    version = commands.add_parser("version", help="write a version with the weights of the students")
    version.set_defaults(run=_version)
    version.add_argument("students", type=Path, nargs="+", help="folders of trainings")
    version.add_argument("--start", type=Path, required=True, help="folder of the version that is strength 0")
    version.add_argument("--out", type=Path, required=True, help="folder to write the version into")
    version.add_argument("--version", required=True, help="name of the version")
    version.add_argument("--strength", type=float, required=True, help="default strength, from 0 to 1")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
