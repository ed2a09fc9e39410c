"""npm projects for tests, each in its own folder."""

import shutil
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.servers import Answer, body

NPM = ROOT / "client" / "npm"
MISSING = 'Give the address of the server: new Upres("https://upres.example.org")'
"""What `new Upres()` says where no upres server has served the library."""

Done = subprocess.CompletedProcess[str]


def run(folder: Path, *command: object) -> Done:
    return subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, timeout=300)


def output(folder: Path, *command: object) -> str:
    """Run an npm or Node.js command and return its output. Raises AssertionError if the command fails."""
    done = run(folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def project(folder: Path, *packages: object) -> Path:
    """Create a user's npm project and install these packages."""
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    output(folder, "npm", "install", "--silent", "--no-fund", "--no-audit", *packages)
    return folder


def tsc(folder: Path, file: str, text: str, *options: str) -> Done:
    """Check a program with the TypeScript compiler, in a project that has it installed."""
    (folder / file).write_text(text)
    return run(folder, "node_modules/.bin/tsc", "--noEmit", "--target", "es2022", *options, file)


def pack(folder: Path) -> Path:
    """Pack the npm package in a copy of its folders, so that the checkout stays unchanged; returns the tarball."""
    shutil.copy(ROOT / "LICENSE", folder)
    for name in ("web", "npm"):
        shutil.copytree(ROOT / "client" / name, folder / "client" / name, ignore=shutil.ignore_patterns("node_modules"))
    package = folder / "client" / "npm"
    return package / output(package, "npm", "pack", "--silent").strip()


def served(files: dict[str, bytes]) -> Answer:
    """Return a handler that responds with the file of the requested path."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        kind = "text/javascript" if path.endswith(".js") else "text/html"
        body(files[path], headers={"Content-Type": kind})(handler)

    return answer
