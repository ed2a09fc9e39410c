"""The models that are part of the package: one folder per model, with one folder per version in it."""

from pathlib import Path

FOLDER = Path(__file__).parent


def versions(name: str) -> dict[str, Path]:
    """The versions of a bundled model, oldest first; empty when there is no such model."""
    found = [path.parent for path in (FOLDER / name).glob("*/manifest.json")]
    ordered = sorted(found, key=lambda path: (len(path.name), path.name))  # by length first: "10" comes after "9"
    return {path.name: path for path in ordered}


def all_versions() -> list[Path]:
    """The folders of all versions of all bundled models."""
    names = sorted({path.parent.parent.name for path in FOLDER.glob("*/*/manifest.json")})
    return [path for name in names for path in versions(name).values()]
