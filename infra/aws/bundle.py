"""`python3 -m infra.aws.bundle`: the function and what it needs, as the zip file that Lambda runs.

Needs nothing but Python and pip; the wheels are for Lambda's platform, whatever this machine has.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / "build"
PLATFORM = ["--platform", "manylinux2014_aarch64", "--python-version", "3.13", "--only-binary", ":all:"]
"""As `architecture` and `runtime` in serverless.yml."""
OURS = ("core/*.py", "function/*.py", "client/web/*")


def main() -> None:
    """Write build/function.zip."""
    folder = BUILD / "function"
    shutil.rmtree(folder, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
    # The conflicts it would warn of are with what this Python has, not with what is in the bundle.
    pip += ["--disable-pip-version-check", "--no-warn-conflicts"]
    requirements = ["--requirement", str(ROOT / "function" / "requirements.txt"), "--target", str(folder)]
    subprocess.run([*pip, *requirements, *PLATFORM], check=True)
    for pattern in OURS:
        for source in ROOT.glob(pattern):
            target = folder / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    shutil.make_archive(str(folder), "zip", folder)


if __name__ == "__main__":
    main()
