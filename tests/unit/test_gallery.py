"""The file of facts about published models: it is valid, and the command shows it."""

import json
from collections import Counter

import pytest
from click.testing import CliRunner
from packaging.licenses import canonicalize_license_expression

from upres.models import gallery, realesrgan
from upres.models.commands import models as command
from upres.models.gallery import PURPOSES, Published, models

CATALOGUE = list(models().values())


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(command, ["gallery", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_there_are_at_least_twenty_models_and_some_for_every_purpose() -> None:
    assert len(CATALOGUE) >= 20
    purposes = Counter(purpose for one in CATALOGUE for purpose in one.purposes)
    assert set(purposes) == set(PURPOSES)
    assert {one.factor for one in CATALOGUE} == {1, 2, 4, 8}


@pytest.mark.parametrize("one", CATALOGUE, ids=lambda one: one.name)
def test_each_model_names_a_licence_of_spdx_and_a_file_over_https(one: Published) -> None:
    assert canonicalize_license_expression(one.licence) == one.licence
    assert one.address is None or one.address.startswith("https://")
    assert len(set(one.purposes)) == len(one.purposes)
    assert 100_000 < one.size < 500_000_000


def test_no_file_is_named_twice() -> None:
    for facts in ([one.sha256 for one in CATALOGUE], [one.address for one in CATALOGUE if one.address]):
        assert len(set(facts)) == len(facts)


def test_models_without_an_address_are_those_of_the_package() -> None:
    packaged = {one.name: one.sha256 for one in CATALOGUE if one.address is None}
    assert packaged == {name: about["sha256"] for name, about in realesrgan.PUBLISHED.items()}


@pytest.mark.parametrize(("licence", "allows"), [("MIT", True), ("CC-BY-4.0", True), ("CC-BY-NC-SA-4.0", False)])
def test_licences_that_forbid_commercial_use_are_recognised(licence: str, allows: bool) -> None:
    assert CATALOGUE[0].model_copy(update={"licence": licence}).allows_commercial_use == allows


def test_the_command_lists_models_for_a_purpose_and_marks_licences() -> None:
    listed = shown("faces")
    assert [line.split()[0] for line in listed.splitlines()[:3]] == ["model", "artfaces-x4", "swinir-real-large-x4"]
    assert "CC-BY-NC-SA-4.0 (no commercial use)" in shown("art")
    everything = shown()
    assert all(one.name in everything for one in CATALOGUE)


def test_the_command_shows_all_facts_of_a_name() -> None:
    one = models()["ultrasharp-x4"]
    details = shown(one.name)
    assert all(fact in details for fact in (one.sha256, one.home, str(one.address), one.author, "no commercial use"))


def test_the_command_prints_json() -> None:
    printed = [json.loads(line) for line in shown("--json").splitlines()]
    assert [one["name"] for one in printed] == list(models())
    assert {one["commercial_use"] for one in printed} == {True, False}
    assert printed[0]["for"] == list(CATALOGUE[0].purposes)


def test_an_unknown_name_is_refused_with_the_known_purposes() -> None:
    done = CliRunner().invoke(command, ["gallery", "nothing"])
    assert done.exit_code == 1
    assert "There is no 'nothing' in the gallery" in done.stderr
    assert all(purpose in done.stderr for purpose in PURPOSES)


def test_the_gallery_is_found_in_the_package() -> None:
    assert gallery.FILE.exists()
