"""What a look at one thing found."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Grade = Literal["ok", "warning", "fault"]


class Finding(NamedTuple):
    """One thing that was looked at."""

    grade: Grade
    what: str
    found: str
    fix: str = ""
    """What to do about it; empty where all is well."""


def ok(what: str, found: str) -> Finding:
    """As it should be."""
    return Finding("ok", what, found)


def warning(what: str, found: str, fix: str) -> Finding:
    """It works, and may not for long, or not for all."""
    return Finding("warning", what, found, fix)


def fault(what: str, found: str, fix: str) -> Finding:
    """It does not work, or jobs get lost."""
    return Finding("fault", what, found, fix)


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing is wrong."""
    return all(finding.grade != "fault" for finding in findings)
