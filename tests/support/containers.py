"""Container images and compose services without Docker: their commands run as local processes."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple, Self

import yaml
from packaging.requirements import Requirement

from infra.manifests import Stage, context, stages
from tests.support.paths import ROOT
from upres.embedded.child import Child, free_port
from upres.embedded.stack import redis_server, tool

DOCKER = ROOT / "infra/docker"
PASSWORD = re.compile(r"\$\{(\w+):\?[^}]*\}")


class Image(NamedTuple):
    """What `docker build` would create from a Dockerfile."""

    folder: Path
    """The files that COPY takes from the build context, and a virtual environment with the packages of the image."""
    environment: dict[str, str]
    entrypoint: list[str]
    command: list[str]
    healthcheck: list[str]


def build(file: str, folder: Path, target: str = "", **arguments: str) -> Image:
    """Build an image in the folder, which is read-only afterwards; `arguments` are those of --build-arg."""
    found = {stage.name: stage for stage in stages(DOCKER / file, **arguments)}
    chain = list(_chain(found, target or list(found)[-1]))
    for source, to in (pair for stage in chain for pair in stage.copied):
        for path in context(ROOT, source):
            copy = folder / to / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, copy)
    instructions = [pair for stage in chain for pair in stage.instructions]
    ran = [value for name, stage in found.items() if stage in chain or name == "packages"
           for instruction, value in stage.instructions if instruction == "RUN"]  # fmt: skip
    install(folder, {path for value in ran for path in re.findall(r"-r (\S+)", value)})
    subprocess.run(["chmod", "-R", "a-w", folder], check=True)
    variables = [re.findall(r"(\w+)=(\S+)", value) for instruction, value in instructions if instruction == "ENV"]
    last = {"ENTRYPOINT": "[]", "HEALTHCHECK": "CMD []", **dict(instructions)}
    commands = (last["ENTRYPOINT"], last["CMD"], last["HEALTHCHECK"].partition("CMD ")[2])
    return Image(folder, dict(pair for pairs in variables for pair in pairs), *map(yaml.safe_load, commands))


def _chain(found: dict[str, Stage], name: str) -> Iterator[Stage]:
    """The stages that a stage is built on, in order, and then the stage itself."""
    if name in found:
        yield from _chain(found, found[name].base)
        yield found[name]


def install(folder: Path, requirements: set[str]) -> None:
    """Create a virtual environment: these requirements and their dependencies, as links to the current one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    lines = [line for path in requirements for line in (ROOT / path).read_text().splitlines()]
    todo, done = [Requirement(line) for line in lines if line and line[0] != "#"], set[str]()
    while todo:
        wanted = todo.pop()
        if wanted.name in done or not (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            continue
        done.add(wanted.name)
        found = distribution(wanted.name)
        for name in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (packages / name).exists():
                (packages / name).symlink_to(str(found.locate_file(name)))
        todo += map(Requirement, found.requires or ())


def confined(image: Image, environment: Mapping[str, str], command: list[str]) -> list[str]:
    """A command line that runs the command in the image with only this environment and without privileges."""
    given = {**environment, "HOME": "/nowhere", "PATH": f"{image.folder}/bin:/usr/bin:/bin"}
    variables = [f"{name}={value}" for name, value in given.items()]
    dropped = ["--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    return ["env", "-i", "-C", str(image.folder), *variables, "setpriv", "--no-new-privs", *dropped, *command]


class Composed:
    """The services of compose.yml as local processes with their own ports and folders; a context manager."""

    def __init__(self, folder: Path) -> None:
        text = (DOCKER / "compose.yml").read_text()
        self.folder = folder
        self.passwords = {name: name.replace("_", "").lower() for name in PASSWORD.findall(text)}
        text = PASSWORD.sub(lambda match: self.passwords[match[1]], text).replace("$$", "$")
        self.services: dict[str, Any] = yaml.safe_load(text)["services"]
        self.ports = {name: free_port() for name in ("redis", "s3", "function", "metrics", "worker")}
        self._children: list[Child] = []
        programs = {"valkey-server": redis_server(), "valkey-cli": tool("redis-cli"), "rclone": tool("rclone")}
        for name, program in programs.items():
            self.made("bin").joinpath(name).symlink_to(program)
        self._images: dict[str, Image] = {}
        self._mount()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for child in reversed(self._children):
            child.stop()

    def made(self, name: str) -> Path:
        """Return the subfolder of this name; create it if needed."""
        (self.folder / name).mkdir(exist_ok=True)
        return self.folder / name

    def _mount(self) -> None:
        """Copy the mounted files of the checkout to /from, with the modes of a checkout made with umask 077."""
        for volume in self.services["configuration"]["volumes"]:
            source, target = volume.split(":")[:2]
            if source.startswith("."):
                copy = self.folder / target.lstrip("/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(DOCKER / source, copy)
                copy.chmod(0o600)

    def start(self, name: str) -> Child:
        """Start a service, and wait until its health check succeeds."""
        assert self.check(name).returncode
        child = Child(name, self.command(name), {}, self.folder, grace=40)
        self._children.append(child)
        child.wait_ready(lambda: self.check(name).returncode == 0, 90)
        return child

    def check(self, name: str) -> "subprocess.CompletedProcess[str]":
        """Run a service's health check."""
        image = self.image(name)
        kind, *test = ["CMD", *image.healthcheck] if image else self.services[name]["healthcheck"]["test"]
        return self._ran(self._line(name, test if kind == "CMD" else ["sh", "-c", *test]))

    def run(self, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a service until it ends; `arguments` replace the arguments of compose.yml."""
        return self._ran(self.command(name, *arguments))

    def command(self, name: str, *arguments: str) -> list[str]:
        """The command line of a service."""
        service, image = self.services[name], self.image(name)
        own = Image(Path(), {}, ["rclone"] if "rclone" in service["image"] else [], [], [])
        entrypoint = service.get("entrypoint", (image or own).entrypoint)
        return self._line(name, [*entrypoint, *(arguments or service.get("command", (image or own).command))])

    def image(self, name: str) -> Image | None:
        """The image of a service that has a `build` section, or None; each image is built once."""
        if (made := self.services[name].get("build")) is None:
            return None
        target = made.get("target", "")
        key = f"image-{Path(made['dockerfile']).stem}-{target}"
        if key not in self._images:
            file = Path(made["dockerfile"]).name
            self._images[key] = build(file, self.made(key), target, **made.get("args", {}))
        return self._images[key]

    def environment(self, name: str) -> dict[str, str]:
        """The environment variables of a service."""
        image = self.image(name)
        given = {**(image.environment if image else {}), **self.services[name].get("environment", {}), "TMPDIR": "/tmp"}
        return {key: self._real(name, value) for key, value in given.items()}

    def _line(self, name: str, command: list[str]) -> list[str]:
        real = [self._real(name, word) for word in command]
        if image := self.image(name):
            return confined(image, self.environment(name), real)
        variables = [f"{key}={value}" for key, value in self.environment(name).items()]
        return ["env", "-i", *variables, f"PATH={self.folder}/bin:/usr/bin:/bin", *real]

    def _real(self, name: str, word: str) -> str:
        """Replace the paths, ports, hosts and users of the container by those of this machine."""
        redis, s3 = self.ports["redis"], self.ports["s3"]
        words = {
            "redis:6379": f"127.0.0.1:{redis}", "s3:9000": f"127.0.0.1:{s3}", "localhost:9000": f"localhost:{s3}",
            "127.0.0.1:9000": f"127.0.0.1:{s3}", "=:9000": f"=127.0.0.1:{s3}", "/tmp": str(self.made(f"{name}-tmp")),
            "/from/": f"{self.folder}/from/",
            "exec valkey-server": f"exec valkey-server --bind 127.0.0.1 --port {redis}",
            "valkey-cli": f"valkey-cli -p {redis}", "65534:65534": f"{os.getuid()}:{os.getgid()}",
            "8000": str(self.ports["function"]), "9464": str(self.ports["worker" if name == "worker" else "metrics"]),
        }  # fmt: skip
        for volume in self.services[name].get("volumes", ()):
            source, target = volume.split(":")[:2]
            if not source.startswith("."):
                words[target] = str(self.made(source))
        return re.sub("|".join(map(re.escape, words)), lambda match: words[match[0]], word)

    def _ran(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(command, capture_output=True, text=True, timeout=60)
