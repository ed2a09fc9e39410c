"""A power failure directly after a run: every result that the run named is whole, or is made again by the next run.

A file system on a loop device is shut down without a last write (FS_IOC_SHUTDOWN), and then mounted again.
"""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.command import upres
from tests.support.images import opened
from upres.client.ledger import NAME
from upres.embedded.stack import Local

SHUTDOWN, WITHOUT_FLUSH = 0x8004587D, 2
"""FS_IOC_SHUTDOWN of Linux, and its flag that drops what is not on the disk yet, the journal included."""


class Disk:
    """An ext4 file system in a file, mounted on a folder."""

    def __init__(self, folder: Path) -> None:
        self.image, self.mounted = folder / "disk", folder / "mounted"
        self.mounted.mkdir()
        with self.image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.image, self.mounted], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", self.mounted], check=True)

    def cut_power(self) -> None:
        """Lose everything that is not on the disk, and start again."""
        descriptor = os.open(self.mounted, os.O_RDONLY)
        fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        os.close(descriptor)
        self.unmount()
        self.mount()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    try:
        made = Disk(tmp_path)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no loop device, or no ext4: {error}")
    yield made
    made.unmount()


def test_results_survive_a_power_failure_directly_after_the_run(
    disk: Disk, local: Local, tmp_path: Path, photo: Image.Image
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(6):
        photo.putpixel((1, 1), (number, 1, 1))
        photo.save(tmp_path / "in" / f"{number}.png")
    out = disk.mounted / "big"
    done = upres(local, tmp_path / "in", "--factor", 2, "--out", out)
    assert done.returncode == 0, done.stderr
    named = [Path(line) for line in done.stdout.splitlines()]
    assert len(named) == 6
    disk.cut_power()
    for path in named:
        assert opened(path.read_bytes()).size == (128, 96)
    assert not list(out.glob("*.part"))
    again = upres(local, tmp_path / "in", "--factor", 2, "--out", out)
    assert again.returncode == 0, again.stderr
    assert len(list(out.glob("*.png"))) == 6
    assert (out / NAME).exists()
