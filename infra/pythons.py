"""`make pythons`: runs `make demo test` in a new clone for each Python in the classifiers that this machine has."""

import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
CLONES = ROOT / "build" / "pythons"


def main() -> int:
    """Print a line per Python; returns 1 if one of them failed. What is not committed is not tested."""
    print("Commits are tested, not what was changed since." if _is_changed() else "The last commit is tested.")
    failed = False
    for version in supported():
        program = f"python{version}"
        if not runs(program, version):
            print(f"{program}: not on this machine", flush=True)
            continue
        print(f"{program}: make demo test …", flush=True)
        begin = time.monotonic()
        code = _test(program)
        failed = failed or code != 0
        print(f"{program}: {'failed' if code else 'passed'} after {time.monotonic() - begin:.0f} s", flush=True)
    return int(failed)


def supported() -> list[str]:
    """The Python versions in the classifiers of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [one.rpartition(" ")[2] for one in project["classifiers"] if ":: Python :: 3." in one]


def _is_changed() -> bool:
    """Return whether a file was changed or added since the last commit."""
    return bool(subprocess.check_output(["git", "status", "--porcelain"], cwd=ROOT))


def runs(program: str, version: str) -> bool:
    """Return whether the program is there and is this version; a shim of pyenv may be there without a Python."""
    if not shutil.which(program):
        return False
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([program, "-c", code], capture_output=True, text=True).stdout.strip() == version


def _test(program: str) -> int:
    """Test a new clone and return the exit code. Its log is beside it; a clone that passed is deleted."""
    clone, log = CLONES / program, CLONES / f"{program}.log"
    shutil.rmtree(clone, ignore_errors=True)
    CLONES.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    with log.open("w") as out:
        code = subprocess.run(
            ["make", f"PYTHON={program}", "demo", "test"], cwd=clone, stdout=out, stderr=out
        ).returncode
    lines = log.read_text(errors="replace").splitlines()
    print("\n".join(f"  {line}" for line in lines[-(20 if code else 1) :]), flush=True)
    if code == 0:
        shutil.rmtree(clone)
    else:
        print(f"  see {log}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
