"""`python -m infra.source_tree`: makes links to the packages under their import names, for mypy and other tools.

The wheel has one package, `upres`; in a checkout its subpackages are top-level folders (`package-dir` in
pyproject.toml). Python finds them by the editable install. mypy, import-linter and editors need folders, so this
script makes links: .venv/source/upres/core → core, and so on.
"""

import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
TREE = ROOT / ".venv" / "source"
CHECKOUT_ONLY = ("benchmarks", "infra", "tests")
"""Packages that are in the checkout, but not in the wheel."""


def main() -> None:
    """Delete the old links, and make new ones."""
    shutil.rmtree(TREE, ignore_errors=True)
    TREE.mkdir(parents=True)
    for name in CHECKOUT_ONLY:
        (TREE / name).symlink_to(ROOT / name)
    for name, folder in packages().items():
        link = TREE.joinpath(*name.split("."))
        if folder != Path("upres"):
            link.symlink_to(ROOT / folder)
            continue
        link.mkdir()
        for path in (ROOT / folder).iterdir():
            (link / path.name).symlink_to(path)


def packages() -> dict[str, Path]:
    """Package name → its folder, for packages listed in `package-dir`; parents come first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: dict[str, str] = settings["tool"]["setuptools"]["package-dir"]
    return {name: Path(found[name]) for name in sorted(found)}


if __name__ == "__main__":
    main()
