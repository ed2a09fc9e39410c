"""`python3 -m infra.aws.bundle`: the function and what it needs, as the zip file that Lambda runs.

Needs nothing but Python and pip; the wheels are for Lambda's platform, whatever this machine has. They
are fetched when function/requirements.txt changed, so that every later bundle is made offline.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / "build"
REQUIREMENTS = ROOT / "function" / "requirements.txt"
PLATFORM = ["--platform", "manylinux2014_aarch64", "--python-version", "3.13", "--only-binary", ":all:"]
"""As `architecture` and `runtime` in serverless.yml."""
OURS = {"upres": ["__init__.py"], "core": ["*.py", "*.lua"], "function": ["*.py"], "client": ["web/*"]}
"""Folder of the checkout → its files that the function needs. In the bundle each is below upres/."""


def main() -> None:
    """Write build/function.zip."""
    folder = BUILD / "function"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(dependencies(), folder)
    copy_sources(folder)
    shutil.make_archive(str(folder), "zip", folder)


def copy_sources(folder: Path) -> None:
    """What of upres itself the function is."""
    for part, patterns in OURS.items():
        inside = folder / "upres" if part == "upres" else folder / "upres" / part
        for source in (path for pattern in patterns for path in (ROOT / part).glob(pattern)):
            target = inside / source.relative_to(ROOT / part)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def dependencies() -> Path:
    """The folder with what the function imports; installed whole or not at all."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + " ".join(PLATFORM).encode()).hexdigest()
    folder = BUILD / f"dependencies-{digest[:12]}"
    if not folder.exists():
        partial = BUILD / "dependencies-partial"
        shutil.rmtree(partial, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
        # The conflicts it would warn of are with what this Python has, not with what is in the bundle.
        pip += ["--disable-pip-version-check", "--no-warn-conflicts"]
        target = ["--requirement", str(REQUIREMENTS), "--target", str(partial)]
        subprocess.run([*pip, *target, *PLATFORM], check=True)
        partial.rename(folder)
    return folder


if __name__ == "__main__":
    main()
