"""The result of one check of `upres doctor`."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Grade = Literal["ok", "warning", "fault"]


class Finding(NamedTuple):
    """The result of one check."""

    grade: Grade
    what: str
    found: str
    fix: str = ""
    """What the operator should do; empty when the grade is ok."""


def ok(what: str, found: str) -> Finding:
    """A check that found no problem."""
    return Finding("ok", what, found)


def warning(what: str, found: str, fix: str) -> Finding:
    """A check that found a problem which may become a fault, or affects some users only."""
    return Finding("warning", what, found, fix)


def fault(what: str, found: str, fix: str) -> Finding:
    """A check that found a fault: upres does not work, or may lose jobs."""
    return Finding("fault", what, found, fix)


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Whether there are no faults; warnings are allowed."""
    return all(finding.grade != "fault" for finding in findings)
