"""Runs a part in a process of its own, with a time limit, and reads what it has printed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
GRACE_SECONDS = 5
"""Seconds between SIGTERM, with which a part may say what it did not do, and SIGKILL; and then for its end."""
UNUSABLE = 69
"""Exit code of the part `versions` when there is no GPU that upres can use (EX_UNAVAILABLE)."""
PASSED, TIME_RAN_OUT, NOT_RUN = "passed", "time ran out", "not run"

Line = dict[str, Any]


class Ran(NamedTuple):
    """A part that was run, or not: its outcome in words, its seconds, and the JSON lines that it has printed."""

    name: str
    outcome: str
    seconds: float = 0
    lines: tuple[Line, ...] = ()
    unusable: bool = False
    """Whether it has found that this machine has no GPU that upres can use."""

    @property
    def passed(self) -> bool:
        """Whether it ran to its end, and all was right."""
        return self.outcome == PASSED


def run(name: str, command: Sequence[str], seconds: float, log: Path, environment: Mapping[str, str]) -> Ran:
    """Run a command for at most `seconds`; what it prints is appended to the file `log`. Never raises for its faults.

    At the end nothing of its process group is left, unless the kernel cannot end it: then the outcome says so.
    """
    begin, before = time.monotonic(), log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=ROOT,
            env=environment,
        )  # fmt: skip
    try:
        code = process.wait(seconds)
        outcome = PASSED if code == 0 else f"failed: {_meaning(code)}"
    except subprocess.TimeoutExpired:
        code, outcome = None, f"failed: {TIME_RAN_OUT} after {seconds:.0f} s"
    finally:
        ended = _end(process)
    if not ended:
        outcome += "; its process cannot be ended"
    with log.open("rb") as output:
        output.seek(before)
        lines = tuple(_json_lines(output.read().decode(errors="replace")))
    return Ran(name, outcome, time.monotonic() - begin, lines, code == UNUSABLE)


def _end(process: "subprocess.Popen[bytes]") -> bool:
    """End a process and its group; return whether it has ended. A process can hang in a driver for ever."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if number == signal.SIGKILL or process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    return process.poll() is not None


def _meaning(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _json_lines(text: str) -> list[Line]:
    """Return the JSON objects among lines of text, which are other output otherwise, perhaps cut off."""
    found = []
    for line in text.splitlines():
        if line.startswith("{"):
            with suppress(ValueError):
                found.append(json.loads(line))
    return found


def environment(inherited: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Return the environment of the parts: nothing in it leads to another upres, or away from this machine.

    `scratch` is a folder for what torch compiles, since not every container has a home folder or a user's name, and for
    temporary files, so that those of a part that was killed go with it.
    """
    kept = {name: value for name, value in inherited.items() if not name.startswith(("UPRES_", "AWS_"))}
    if server := inherited.get("UPRES_REDIS_SERVER"):
        kept["UPRES_REDIS_SERVER"] = server
    direct = ",".join(filter(None, (inherited.get("NO_PROXY", ""), "127.0.0.1", "localhost")))
    caches = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "PYTORCH_KERNEL_CACHE_PATH", "UPRES_CACHE_DIR", "TMPDIR")
    folders = {name: str(scratch / name.lower()) for name in caches}
    for folder in folders.values():
        Path(folder).mkdir()
    return {**kept, **folders, "NO_PROXY": direct, "no_proxy": direct, "PYTHONUNBUFFERED": "1"}


def command(module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command of a part."""
    return [sys.executable, "-m", module, *arguments]
