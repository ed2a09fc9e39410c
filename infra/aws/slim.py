"""Makes the files for Lambda fewer, and faster to import: without what is never used there, and with bytecode."""

import shutil
import subprocess
import sys
from pathlib import Path

from infra.pythons import runs

RUNTIME = "3.13"
"""The Python of `runtime` in serverless.yml."""
UNUSED = ("uvicorn", "uvloop", "httptools", "h11", "boto3/data", "boto3/examples")
"""Packages and folders that only a server, or another use of boto3's, needs: Lambda's own client takes the requests."""
SERVICES = {"s3"}
"""The AWS services that the function calls; botocore has the descriptions of all of them: 28 MB."""


def remove_unused(folder: Path) -> None:
    """Remove what the function never uses on Lambda from the installed packages in a folder."""
    for name in UNUSED:
        shutil.rmtree(folder / name)
        for about in folder.glob(f"{name}-*.dist-info"):
            shutil.rmtree(about)
    for service in (folder / "botocore" / "data").iterdir():
        if service.is_dir() and service.name not in SERVICES:
            shutil.rmtree(service)


def compile_sources(folder: Path) -> None:
    """Write the bytecode of all modules in a folder; say so when there is no Python of the right version for it."""
    program = sys.executable if runs(sys.executable, RUNTIME) else f"python{RUNTIME}"
    if runs(program, RUNTIME):
        compile_with(program, folder)
        return
    print(
        f"There is no Python {RUNTIME} here: the bundle has no bytecode, so cold starts take more than twice as long. "
        f"Install python{RUNTIME}, and package again.",
        file=sys.stderr,
    )


def compile_with(program: str, folder: Path) -> None:
    """Write the bytecode for this Python.

    Lambda's file system is read-only, so that each cold start would compile all sources anew. Python does not compare
    such bytecode with its source (PEP 552), and so never reads the source.
    """
    mode = ["--invalidation-mode", "unchecked-hash", "-s", str(folder)]  # no path of this machine in it
    subprocess.run([program, "-m", "compileall", "-q", *mode, str(folder)], check=True)
