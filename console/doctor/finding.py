"""What a look at one thing found."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Grade = Literal["well", "doubtful", "wrong"]


class Finding(NamedTuple):
    """One thing that was looked at."""

    grade: Grade
    what: str
    found: str
    mend: str = ""
    """What to do about it; empty where all is well."""


def well(what: str, found: str) -> Finding:
    """As it should be."""
    return Finding("well", what, found)


def doubtful(what: str, found: str, mend: str) -> Finding:
    """It works, and may not for long, or not for all."""
    return Finding("doubtful", what, found, mend)


def wrong(what: str, found: str, mend: str) -> Finding:
    """It does not work, or jobs get lost."""
    return Finding("wrong", what, found, mend)


def is_well(findings: Iterable[Finding]) -> bool:
    """Whether nothing is wrong."""
    return all(finding.grade != "wrong" for finding in findings)
