"""Runs the command `upres` as a user would."""

import os
import subprocess
from pathlib import Path

from upres.embedded.stack import Local, tool

Run = subprocess.CompletedProcess[str]


def upres(local: Local | None, *arguments: object, cwd: Path | None = None) -> Run:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    if local:
        environment["UPRES_URL"] = local.url
    command = [tool("upres"), *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=100)
