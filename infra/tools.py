"""`python -m infra.tools TIER`: installs system programs that tests need, or prints how to install them.

On Debian and Ubuntu they are installed by apt-get, as root or by a sudo without password. Elsewhere the command to
install them is printed, and the exit code is 1. Programs on npm and PyPI are installed by the Makefile.
"""

import os
import platform
import shutil
import subprocess
import sys
from ctypes.util import find_library
from typing import NamedTuple

from infra.chromium import NAMES


class Tool(NamedTuple):
    """A program or library (named lib…), its purpose, and its Debian package."""

    name: str
    purpose: str
    package: str
    only_linux: bool = False

    def is_there(self) -> bool:
        """Whether it is installed, or is not needed on this system."""
        if self.only_linux and sys.platform != "linux":
            return True
        if self.name.startswith("lib"):
            return find_library(self.name.removeprefix("lib")) is not None
        return any(map(shutil.which, NAMES if self.name == "chromium" else [self.name]))


TEST = (
    Tool("curl", "the examples of the documentation", "curl"),
    Tool("openssl", "certificates and passwords", "openssl"),
    Tool("libseccomp", "confines the decoders of images", "libseccomp2", only_linux=True),
)
CHROMIUM = Tool("chromium", "drives the page; on Linux x64 npm has one", "chromium")
SYSTEM = (
    Tool("prometheus", "scrapes, and tests the alerts", "prometheus"),
    Tool("promtool", "tests the alerts", "prometheus"),
    Tool("nginx", "stands before the function", "nginx-light"),
    Tool("envsubst", "fills in the Kubernetes manifests", "gettext-base"),
    Tool("setpriv", "runs what containers run, without privileges", "util-linux", only_linux=True),
    Tool("systemd-analyze", "reads the systemd units", "systemd", only_linux=True),
)
TIERS = {"test": TEST, "test-all": (*TEST, *SYSTEM)}


def main() -> int:
    """Find missing tools and try to install them; returns 1 when some are still missing."""
    wanted = TIERS[sys.argv[1]]
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        wanted = (*wanted, CHROMIUM)
    missing = [tool for tool in wanted if not tool.is_there()]
    if missing:
        print("Missing on this machine:")
        for tool in missing:
            print(f"  {tool.name:<16} {tool.purpose}")
        install(sorted({tool.package for tool in missing}))
        missing = [tool for tool in missing if not tool.is_there()]
    return 1 if missing else 0


def install(packages: list[str]) -> None:
    """Install packages by apt-get, or print how to install them."""
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if not shutil.which("apt-get"):
        print(f"Install them with your package manager; Debian's packages are called {', '.join(packages)}.")
    elif root and not (shutil.which("sudo") and subprocess.run([*root, "true"], capture_output=True).returncode == 0):
        print(f"Install them with: sudo apt-get install {' '.join(packages)}")
    else:
        print(f"apt-get install {' '.join(packages)} …", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([*root, "apt-get", "update", "-qq"], env=environment)
        subprocess.run(
            [*root, "apt-get", "install", "-y", "-qq", *packages], env=environment, stdout=subprocess.DEVNULL
        )


if __name__ == "__main__":
    sys.exit(main())
