"""Which Chromium Playwright drives: the one that make unpacks on Linux x64 (chromium.mjs), else the system's."""

import os
import shutil
from pathlib import Path
from typing import Any

BUNDLED = Path(__file__).parent.parent / ".venv" / "chromium"
NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def launch_options() -> dict[str, Any]:
    """Arguments of Playwright's `launch`. Raises FileNotFoundError where there is no Chromium."""
    bundled = BUNDLED / "chromium"
    if bundled.exists():
        libraries = {"LD_LIBRARY_PATH": str(BUNDLED / "lib"), "FONTCONFIG_FILE": str(BUNDLED / "own-fonts.conf")}
        return {"executable_path": str(bundled), "args": OPTIONS, "env": {**os.environ, **libraries}}
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if not program:
        raise FileNotFoundError("There is no Chromium; install one, for example Debian's package chromium.")
    return {"executable_path": program, "args": OPTIONS}
