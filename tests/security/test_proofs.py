"""SECURITY.md and proofs.toml agree: each promise has tests, and each of these tests exists."""

import ast
import re
import tomllib
from functools import cache
from typing import Any

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
PAGE = (ROOT / "SECURITY.md").read_text()
TABLE: dict[str, Any] = tomllib.loads((TESTS / "security/proofs.toml").read_text())
PARTS: list[dict[str, list[str]]] = [*TABLE["threats"].values(), TABLE["elsewhere"]]
FILE = re.compile(r"((?:unit|service|system(?:/aws)?|security)/test_\w+\.py)")


def rows() -> dict[str, list[str]]:
    """The rows of «Threats»: the cells after the first one, by the first one."""
    cells = [re.split(r"\s*\|\s*", line.strip("| ")) for line in PAGE.splitlines() if line.startswith("|")]
    return {what: others for what, *others in cells[2:]}


def sentences() -> list[str]:
    """The sentences of all sections after «Threats»; each is in an item of a list."""
    after = PAGE.partition("\n## What is trusted\n")[2]
    assert after
    items = re.findall(r"^- (.+(?:\n  .+)*)", after, re.MULTILINE)
    return [one for item in items for one in re.split(r"(?<=\.) (?=[A-Z])", " ".join(item.split()))]


def proofs(part: dict[str, list[str]]) -> list[str]:
    return [name for names in part.values() for name in names]


@cache
def functions(file: str) -> set[str]:
    """The names of the test functions in a file, which is not imported."""
    parsed = ast.parse((TESTS / file).read_text())
    return {one.name for one in parsed.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_threat_and_each_part_of_its_defence_is_in_the_table() -> None:
    assert {what: set(re.split("; ", cells[1])) for what, cells in rows().items()} == {
        what: set(parts) for what, parts in TABLE["threats"].items()
    }


def test_every_other_sentence_has_proofs_or_is_listed_as_no_promise() -> None:
    assert sorted(sentences()) == sorted([*TABLE["elsewhere"], *TABLE["no_promise"]["sentences"]])


def test_every_promise_has_a_proof() -> None:
    assert [promise for part in PARTS for promise, names in part.items() if not names] == []


@pytest.mark.parametrize("name", sorted({one for part in PARTS for one in proofs(part)}))
def test_the_test_exists(name: str) -> None:
    file, _, function = name.partition("::")
    assert function in functions(file)
    assert function.startswith("test_")


@pytest.mark.parametrize("what", rows())
def test_the_page_names_the_files_of_the_table(what: str) -> None:
    """The last column of the page says where the proofs are, without being a second table that can disagree."""
    files = {name.partition("::")[0] for name in proofs(TABLE["threats"][what])}
    assert set(FILE.findall(rows()[what][-1])) == files
