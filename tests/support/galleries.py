"""A gallery with one small model, whose weights a server of the test publishes."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.checkpoints import calm, saved
from upres.core import registry
from upres.worker.engine.networks import SRVGGNetCompact

COMMAND = """
import sys
from pathlib import Path
from upres.models import download, gallery
gallery.FILE = Path(sys.argv.pop(1))
download.PAUSES = (0.01,)
from upres.cli import main
main()
"""
"""The command `upres` with another gallery, in the file that is its first argument, and short pauses."""


def checkpoint(folder: Path) -> bytes:
    """A file of weights of the architecture Compact, as authors publish them."""
    folder.mkdir(parents=True, exist_ok=True)
    return saved({"params_ema": calm(SRVGGNetCompact(2, width=8, depth=1))}, folder / "compact.pth").read_bytes()


def published(data: bytes, url: str, **changed: Any) -> dict[str, Any]:
    """The facts of a model whose file has this data, at `url`/tiny.pth."""
    facts = {
        "for": ["photo"],
        "about": "A test.",
        "architecture": "Compact",
        "factor": 2,
        "licence": "MIT",
        "author": "Nobody",
        "home": "https://example.org",
        "size": len(data),
        "sha256": registry.digest(data) if data else hashlib.sha256().hexdigest(),
        "address": f"{url}/tiny.pth",
    }
    return facts | changed


def write(file: Path, **models: dict[str, Any]) -> Path:
    """Write a gallery. JSON's strings, numbers and lists are those of TOML."""
    tables = (
        [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in one.items())] for name, one in models.items()
    )
    file.write_text("\n".join(line for table in tables for line in table))
    return file


def start(
    gallery: Path, *arguments: str, environment: dict[str, str], cwd: Path, **options: Any
) -> subprocess.Popen[str]:
    """Start `upres models …` with this gallery."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(gallery), "models", *arguments],
        env={**os.environ, **environment},
        cwd=cwd,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
    )


def run(gallery: Path, *arguments: str, environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    with start(gallery, *arguments, environment=environment, cwd=cwd) as process:
        out, err = process.communicate(timeout=100)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
