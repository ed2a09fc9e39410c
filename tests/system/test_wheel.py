"""The installed package: a wheel is built and installed into new virtual environments, outside the checkout."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import upres
from tests.support.paths import ROOT, SAMPLES
from upres.embedded.stack import Local

pytestmark = pytest.mark.timeout(600)
Run = subprocess.CompletedProcess[str]
SUBCOMMANDS = ("enlarge", "up", "jobs", "keys", "models", "workers", "doctor")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that git does not ignore, so without results of an earlier build; as made with umask 077."""
    folder = tmp_path_factory.mktemp("source")
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True)
    for name in listed.splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
            (folder / name).chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build(source, "wheel", out)
    [made] = out.iterdir()
    return made


def build(source: Path, what: str, out: Path) -> None:
    code = f"import sys; from setuptools import build_meta; build_meta.build_{what}(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(out)], cwd=source, check=True, capture_output=True)


class Environment:
    """A new virtual environment in which the wheel is installed, optionally with an extra."""

    def __init__(self, folder: Path, wheel: Path, extra: str = "") -> None:
        self.folder, self.elsewhere = folder / "venv", folder / "elsewhere"
        self.elsewhere.mkdir()
        subprocess.run([sys.executable, "-m", "venv", self.folder], check=True)
        pip: list[str | Path] = [
            self.folder / "bin/python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, f"{wheel}[{extra}]" if extra else str(wheel)], check=True)

    def run(self, *command: object, **environment: str) -> Run:
        """Run a program of the environment in an unrelated folder, without UPRES_*, AWS_* and PYTHON* variables."""
        program, *arguments = map(str, command)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("UPRES_", "AWS_", "PYTHON"))}
        return subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            cwd=self.elsewhere,
            env={**clean, "NO_COLOR": "1", "COLUMNS": "100", **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture
def photo_file(tmp_path: Path) -> Path:
    with Image.open(SAMPLES / "chelsea.png") as image:
        image.convert("RGB").crop((130, 90, 194, 138)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def names(archive: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(archive).namelist() if not name.endswith("/")}


def test_every_user_can_read_the_files_that_pip_installs(wheel: Path, tmp_path: Path) -> None:
    """The archive has the modes of the checkout, and pip gives the files those of the machine that it installs on."""
    assert {one.external_attr >> 16 & 0o777 for one in zipfile.ZipFile(wheel).infolist()} >= {0o600}
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-compile",
    ]
    subprocess.run([*pip, "--target", tmp_path / "installed", wheel], check=True, umask=0o022)
    assert [path for path in (tmp_path / "installed").rglob("*") if not path.stat().st_mode & 0o004] == []


def test_the_wheel_has_one_top_level_package_and_all_files_used_at_run_time(wheel: Path) -> None:
    held = names(wheel)
    tops = {name.partition("/")[0] for name in held}
    assert tops == {"upres", f"upres-{upres.__version__}.dist-info"}
    for name in (
        "py.typed",
        "core/jobs.lua",
        "client/web/upres.js",
        "models/gallery.toml",
        "models/golden.png",
        "models/faithful/1/manifest.json",
        "models/photo/1/manifest.json",
    ):
        assert f"upres/{name}" in held
    tracked = subprocess.check_output(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True
    ).splitlines()
    parts = ("client", "console", "core", "function", "models", "worker", "upres")
    ours = [name for name in tracked if name.split("/")[0] in parts and not name.startswith("client/npm/")]
    read = [
        name
        for name in ours
        if name.endswith((".py", ".lua", ".js", ".css", ".html", ".jpg")) and (ROOT / name).exists()
    ]
    assert {name if name.startswith("upres/") else f"upres/{name}" for name in read} <= held
    assert not {name for name in held if "test" in name.lower() or name.startswith("upres/infra")}


def test_the_source_distribution_builds_a_wheel_with_the_same_files(source: Path, wheel: Path, tmp_path: Path) -> None:
    build(source, "sdist", tmp_path)
    [packed] = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(packed, tmp_path)
    [unpacked] = (path for path in tmp_path.iterdir() if path.is_dir())
    (tmp_path / "again").mkdir()
    build(unpacked, "wheel", tmp_path / "again")
    [again] = (tmp_path / "again").iterdir()
    assert names(again) == names(wheel)


REPEATED = re.compile(r'(?:upres-(?:function|worker|operator):|newTag: |upres-|"version": ")(\d+\.\d+\.\d+)')
"""A version in the tag of a container image, in the name of a wheel, or of the npm package."""


def test_every_version_in_the_repository_equals_the_package_version() -> None:
    assert importlib.metadata.version("upres") == upres.__version__
    documents = [
        *ROOT.glob("infra/**/*"),
        *ROOT.glob("docs/*.md"),
        ROOT / "README.md",
        ROOT / "client/npm/package.json",
    ]
    texts = (".yml", ".yaml", ".Dockerfile", ".md", ".json")
    found = {path: REPEATED.findall(path.read_text()) for path in documents if path.is_file() and path.suffix in texts}
    assert {version for versions in found.values() for version in versions} == {upres.__version__}
    repeating = {path.name for path, versions in found.items() if versions}
    assert {"compose.yml", "worker.Dockerfile", "kustomization.yaml", "README.md", "package.json"} <= repeating


def test_without_extras_the_client_works_and_other_commands_name_the_extra(wheel: Path, tmp_path: Path) -> None:
    base = Environment(tmp_path, wheel)
    (base.elsewhere / "core").mkdir()  # a user's own folder with the name of an upres package
    assert base.run("python", "-c", "from upres import AsyncClient, Client, __version__").returncode == 0
    lists_names = "import upres, sys; assert 'Client' in dir(upres); assert 'httpx' not in sys.modules"
    assert base.run("python", "-c", lists_names).returncode == 0
    assert base.run("upres", "--version").stdout.strip().endswith(upres.__version__)
    assert "Commands:" in base.run("upres", "--help").stdout
    for name in SUBCOMMANDS:
        shown = base.run("upres", name, "--help")
        assert (shown.returncode, "Usage: upres" in shown.stdout) == (0, True), shown.stderr
    for extra, command in (
        ("local", ["upres", "--local", SAMPLES / "chelsea.png"]),
        ("server", ["upres", "up"]),
        ("operator", ["upres", "jobs"]),
        ("operator", ["upres", "keys"]),
        ("operator", ["upres", "workers"]),
        ("operator", ["upres", "doctor"]),
        ("operator", ["upres", "models"]),
        ("worker", ["python", "-m", "upres.worker"]),
        ("function", ["python", "-m", "upres.function"]),
    ):
        lacking = base.run(*command)
        assert lacking.returncode == 1, command
        assert f'pip install "upres[{extra}]"' in lacking.stderr
        assert "Traceback" not in lacking.stderr
        assert lacking.stderr.count("\n") == 1
    check_types(base)


def check_types(base: Environment) -> None:
    """Check that a user's script sees the types of the SDK, under mypy --strict."""
    (base.elsewhere / "script.py").write_text(
        "from upres import Client\nwith Client('http://127.0.0.1:1') as client:\n"
        "    reveal_type(client.upscale('x.png', factor=2).save('y.png'))\n"
    )
    mypy: list[str | Path] = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        base.folder / "bin/python",
        "script.py",
    ]
    typed = subprocess.run(mypy, cwd=base.elsewhere, capture_output=True, text=True)
    assert 'Revealed type is "pathlib.Path"' in typed.stdout
    assert typed.returncode == 0, typed.stdout


def test_the_extra_local_enlarges_an_image_without_a_server(wheel: Path, tmp_path: Path, photo_file: Path) -> None:
    local = Environment(tmp_path, wheel, "local")
    done = local.run("upres", "--local", photo_file, "--factor", "2")
    assert done.returncode == 0, done.stderr
    with Image.open(local.elsewhere / "photo_x2.png") as image:
        assert image.size == (128, 96)


def test_the_extra_operator_runs_the_operator_commands(local: Local, wheel: Path, tmp_path: Path) -> None:
    operator = Environment(tmp_path, wheel, "operator")
    for command in (["jobs"], ["keys"], ["workers"], ["models"], ["doctor"]):
        shown = operator.run("upres", *command, **local.environment)
        assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "faithful" in operator.run("upres", "models", **local.environment).stdout
    needs_torch = operator.run("upres", "models", "verify", "faithful", **local.environment)
    assert 'pip install "upres[worker]"' in needs_torch.stderr
    pushed = operator.run("upres", "models", "push", "photo", **local.environment)
    assert pushed.stdout == "photo 1 is in the registry, and its base faithful 1\n"


def test_the_extra_server_runs_the_whole_stack_with_one_command(wheel: Path, tmp_path: Path, photo_file: Path) -> None:
    server = Environment(tmp_path, wheel, "server")
    done = server.run(
        "upres", "up", "--port", "0", "--", "upres", photo_file, PATH=f"{server.folder}/bin:{os.environ['PATH']}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with Image.open(server.elsewhere / "photo_x4.png") as image:
        assert image.size == (256, 192)
    page = "import os, httpx; print(httpx.get(os.environ['UPRES_URL']).text)"
    served = server.run("upres", "up", "--port", "0", "--", server.folder / "bin/python", "-c", page)
    assert "<title>upres" in served.stdout


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ("function", "import upres.function.app, upres.function.handler, upres.function.backlog"),
        ("worker", "import upres.worker.service, upres.worker.engine.torch_compute"),
        ("onnx", "import onnx, onnxruntime, onnxscript"),
        ("community", "import importlib.metadata; importlib.metadata.version('spandrel')"),
        ("tracing", "from upres.core import tracing; assert tracing.begin('test')"),
    ],
)
def test_each_extra_installs_the_packages_that_its_part_imports(
    wheel: Path, tmp_path: Path, extra: str, code: str
) -> None:
    environment = Environment(tmp_path, wheel, extra)
    done = environment.run("python", "-c", code, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr


def test_all_requirements_files_pin_the_same_version_of_a_package() -> None:
    known: dict[str, str] = {}
    for path in [
        *ROOT.glob("*requirements*.txt"),
        *ROOT.glob("*/requirements*.txt"),
        *ROOT.glob("upres/*/requirements.txt"),
    ]:
        for line in path.read_text().splitlines():
            if match := re.match(r"([A-Za-z0-9_.-]+(?:\[.*\])?)([~=]=\S+)", line):
                assert known.setdefault(match[1].lower(), match[2]) == match[2], (path, line)
