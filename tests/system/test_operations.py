"""Runs the commands of docs/operations.md in order, except those that the page marks with "not run here"."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.paths import ROOT
from upres.embedded.child import free_port
from upres.embedded.stack import redis_server, tool

TEXT = (ROOT / "docs/operations.md").read_text()
PORTS = ("6379", "9000", "8000", "9463", "9464", "9465")


class Block(NamedTuple):
    """A block of shell commands, and the paragraph above it."""

    above: str
    commands: str

    @property
    def is_run(self) -> bool:
        return "not run here" not in self.above.lower()


BLOCKS = [Block(*found) for found in re.findall(r"((?:[^\n]+\n)+)\n```sh\n(.*?)```", TEXT, re.DOTALL)]


def test_all_blocks_of_commands_are_found_and_only_known_ones_are_not_run() -> None:
    assert len(BLOCKS) == TEXT.count("```sh")
    assert [block.commands.split()[0] for block in BLOCKS if not block.is_run] == [
        *("make", "sudo", "for", "kubectl", "npx", "git"),
    ]


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A copy of the files that git does not ignore, with the contents of this .venv and redis-server on the PATH."""
    folder = tmp_path / "upres"
    for name in subprocess.check_output(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True
    ).splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != "installed":
            (folder / ".venv" / path.name).symlink_to(path)
    made_for = f"{sys.version_info.major}.{sys.version_info.minor} {folder}\n"
    (folder / ".venv/installed").write_text(made_for)  # else make sees that the checkout was copied, and sets up anew
    (tmp_path / "bin").mkdir()
    for name, program in (("redis-server", redis_server()), ("redis-cli", tool("redis-cli"))):
        (tmp_path / "bin" / name).symlink_to(program)
    yield folder
    with suppress(OSError, ValueError):
        os.kill(int((folder / "data/redis.pid").read_text()), signal.SIGKILL)


@pytest.mark.timeout(300)
def test_the_commands_of_the_page_set_up_and_operate_a_running_system(clone: Path) -> None:
    script = "set -eo pipefail\n" + "\n".join(block.commands for block in BLOCKS if block.is_run) + "\necho all done\n"
    for port in PORTS:
        script = re.sub(rf"\b{port}\b", str(free_port()), script)
    (clone / "commands.sh").write_text(script)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("UPRES_", "AWS_"))}
    environment = {
        **inherited,
        "PATH": f"{clone.parent}/bin:{os.environ['PATH']}",
        "UPRES_CACHE_DIR": str(clone / "cache"),
    }
    with (clone / "log").open("w") as log:
        shell = subprocess.Popen(
            ["bash", "-x", "commands.sh"], cwd=clone, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = shell.wait(280)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)  # also the background processes of the script
    received = (clone / "log").read_text()
    assert code == 0, received[-3000:]
    assert received.endswith("all done\n")
    assert received.count("✗") == 0
    assert (clone / "data/chelsea_x2.png").exists()
    assert (clone / "data/again/chelsea_x2.png").exists()
    assert "url_unreachable" in received


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
@pytest.mark.parametrize("name", ["upres-function.service", "upres-worker.service"])
def test_systemd_accepts_the_unit_files(tmp_path: Path, name: str) -> None:
    unit = (ROOT / "infra/systemd" / name).read_text().replace("/opt/upres/.venv/bin/python", sys.executable)
    (tmp_path / name).write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / name)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert name not in done.stderr
