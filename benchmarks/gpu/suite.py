"""The tests of the engine and the models (pytest's mark `device`), with the device as UPRES_TEST_DEVICE.

    python -m benchmarks.gpu.suite --device cuda

When it is told to end, because its time has run out, it says how many tests were not run.
"""

import os
import signal
import sys
from collections import Counter

import pytest

from benchmarks.gpu import part
from benchmarks.gpu.part import Checks, missing
from benchmarks.gpu.runner import ROOT
from benchmarks.report import emit

TESTS = ("tests/unit", "tests/service")


class Count:
    """A plugin of pytest that counts outcomes, and prints each failure at once."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self.selected = 0
        self.outcomes: Counter[str] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count what is going to be run."""
        self.selected = len(session.items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Report a module that cannot be imported, for want of a package perhaps; the others are run all the same."""
        self._expect_passed(report, "cannot be imported: ")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the outcome of a test; of its setup and its end only if they went wrong, or skipped it."""
        if report.when == "call" or not report.passed:
            self.outcomes[report.outcome] += 1
        self._expect_passed(report)

    def _expect_passed(self, report: pytest.CollectReport | pytest.TestReport, what: str = "") -> None:
        if report.failed:
            print()  # pytest has begun a line with the test's name
            self._checks.expect(False, f"{report.nodeid}: {what}{_error(report)}")


def _error(report: pytest.CollectReport | pytest.TestReport) -> str:
    """Return the line of a failed report that says what is wrong: pytest begins it with an E."""
    lines = report.longreprtext.strip().splitlines() if report.failed else []
    return next((line[1:].strip() for line in lines if line.startswith("E ")), (lines or [""])[-1])


def main() -> int:
    """Run the tests, and print how many passed."""
    parser = part.parser("suite", __doc__)
    parser.add_argument("--only", nargs="+", default=TESTS, metavar="PATH", help="files or folders of tests")
    wanted, checks = parser.parse_args(), Checks()
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("time ran out", 1))
    os.environ["UPRES_TEST_DEVICE"] = wanted.device
    os.chdir(ROOT)
    count = Count(checks)
    # A warning of a driver or a library for GPUs is no wrong pixel; elsewhere warnings are errors.
    options = ["-m", "device", "-v", "--continue-on-collection-errors", "-W", "default", "-p", "no:cacheprovider"]
    code = pytest.main([*options, *wanted.only], plugins=[count])
    for outcome in ("passed", "failed", "skipped"):
        emit(f"suite.{outcome}", count.outcomes[outcome], "tests", "selected", max(1, count.selected))
    left = count.selected - count.outcomes.total()
    if left > 0:
        missing(f"{left} of {count.selected} tests", "time ran out")
    checks.expect(count.outcomes["passed"] > 0, "no test has passed")
    return checks.code or int(code)


if __name__ == "__main__":
    sys.exit(main())
