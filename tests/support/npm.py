"""npm projects for tests, each in its own folder."""

import subprocess
from pathlib import Path

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
