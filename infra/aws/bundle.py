"""`python3 -m infra.aws.bundle`: packs the function and its dependencies into the zip file for Lambda.

Needs only Python and pip. Wheels are downloaded for the platform of Lambda, not for that of this machine, and only when
function/requirements.txt has changed: later builds work offline. Lambda runs the function as a user who owns no file,
so modes are set here; those of the checkout depend on the umask with which it was made.
"""

import hashlib
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from infra.aws import slim

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / "build"
REQUIREMENTS = ROOT / "function" / "requirements.txt"
PLATFORM = ["--platform", "manylinux2014_aarch64", "--python-version", slim.RUNTIME, "--only-binary", ":all:"]
"""pip's options for `architecture` and `runtime` in serverless.yml; must agree with them."""
OURS = {"upres": ["__init__.py"], "core": ["*.py", "*.lua"], "function": ["*.py"], "client": ["web/*"]}
"""Folder of the checkout → patterns of the files that the function needs. In the zip file each is below upres/."""


def main() -> None:
    """Write build/function.zip."""
    folder = BUILD / "function"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(dependencies(), folder)
    slim.remove_unused(folder)
    copy_sources(folder)
    slim.compile_sources(folder)
    make_readable(folder)
    shutil.make_archive(str(folder), "zip", folder)


def copy_sources(folder: Path) -> None:
    """Copy the source files of upres that the function needs."""
    for part, patterns in OURS.items():
        inside = folder / "upres" if part == "upres" else folder / "upres" / part
        for source in (path for pattern in patterns for path in (ROOT / part).glob(pattern)):
            target = inside / source.relative_to(ROOT / part)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def make_readable(folder: Path) -> None:
    """Let every user read all files and folders in a folder, and run its programs; only the owner may write."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)


def dependencies() -> Path:
    """The folder with the installed dependencies. It is renamed when complete, so it is never incomplete."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + " ".join(PLATFORM).encode()).hexdigest()
    folder = BUILD / f"dependencies-{digest[:12]}"
    if not folder.exists():
        partial = BUILD / "dependencies-partial"
        shutil.rmtree(partial, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
        # pip would warn about conflicts with packages of this Python, which are not in the zip file.
        pip += ["--disable-pip-version-check", "--no-warn-conflicts"]
        target = ["--requirement", str(REQUIREMENTS), "--target", str(partial)]
        subprocess.run([*pip, *target, *PLATFORM], check=True)
        partial.rename(folder)
    return folder


if __name__ == "__main__":
    main()
