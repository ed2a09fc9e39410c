"""The page for whoever tries it: sample photos, models in words, and the strength of one, in a real browser."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support import mixable
from tests.support.browser import Draw, Visit, choose, choose_model, done, working
from upres.core import registry_changes
from upres.core.storage import Store
from upres.embedded.stack import Local

MOST_BYTES = 100_000
SIX = [
    {
        "name": f"model-{number}",
        "default": number == 4,
        "description": f"Does {number}.",
        "factors": [2, 4 if number else 2],
    }
    for number in range(6)
]


@pytest.fixture(autouse=True, scope="module")
def small_models(store: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The quick models `soft`, and `firm`, whose strength can be chosen."""
    _base, firm = mixable.pair(tmp_path_factory.mktemp("models"), ("soft", "firm"))
    registry_changes.push(store, firm.files["golden.png"].parent)


def test_a_sample_photo_is_enlarged_like_a_file(visit: Visit, page: Page) -> None:
    choose_model(page, "soft")
    page.locator("input[name=factor][value='2']").check(force=True)
    samples = page.locator("#samples img")
    expect(samples).to_have_count(3)
    for image in samples.all():
        image.scroll_into_view_if_needed()
        assert len(image.get_attribute("alt") or "") > len("sample photo")
        fetched = page.request.get(f"{page.url}{(image.get_attribute('src') or '').lstrip('/')}")
        assert fetched.headers["content-type"] == "image/jpeg"
        assert len(fetched.body()) < MOST_BYTES
        size = image.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
        assert 256 <= max(size) <= 400
    page.locator("#samples button").nth(1).focus()
    page.keyboard.press("Enter")
    done(page)
    expect(page.locator("h2")).to_have_text("coffee.jpg")
    assert page.locator("img.after").evaluate("image => image.naturalWidth") == 720
    page.route("**/web/cat.jpg", lambda route: route.abort())
    page.locator("#samples button").first.click()
    expect(page.locator("#trouble")).to_contain_text("sample photo could not be loaded")
    visit.wrong = [text for text in visit.wrong if "ERR_FAILED" not in text]


def test_models_say_what_they_do_and_the_default_is_chosen(page: Page, local: Local) -> None:
    listed = page.request.get(f"{local.url}/v1/models").json()["models"]
    enlarging = [model for model in listed if max(model["factors"], default=0) > 1]
    rows = page.locator(".model")
    expect(rows).to_have_count(len(enlarging))
    for model in enlarging:
        expect(rows.filter(has=page.locator(f"input[value='{model['name']}']"))).to_contain_text(model["description"])
    [default] = [model["name"] for model in enlarging if model["default"]]
    assert page.locator("input[name=model]:checked").get_attribute("value") == default
    expect(rows.first.locator(".default")).to_be_visible()
    expect(page.locator(".model .default:visible")).to_have_count(1)


def test_many_models_do_not_fill_the_page(visit: Visit, local: Local) -> None:
    page = visit.page
    page.route("**/v1/models", lambda route: route.fulfill(json={"models": SIX}))
    page.goto(local.url)
    expect(page.locator(".model input")).to_have_count(6)
    assert page.locator(".model b").all_inner_texts()[0] == "model-4"
    expect(page.locator(".model:visible")).to_have_count(4)
    choose_model(page, "model-3")
    choose_model(page, "model-0")  # has no network for 4
    expect(page.locator("input[name=factor][value='4']")).to_be_disabled()
    assert page.locator("input[name=factor]:checked").get_attribute("value") == "2"


def test_the_strength_begins_at_the_default_and_is_sent(page: Page, draw: Draw) -> None:
    knob, value = page.locator("#knob"), page.locator("#value")
    expect(knob).to_be_hidden()
    choose_model(page, "firm")
    expect(knob).to_have_value(str(mixable.DEFAULT))
    expect(value).to_have_text("0.4 · between faithful and sharp (default)")
    page.keyboard.press("Tab")  # from the radio buttons
    if (
        page.evaluate("document.activeElement.tagName") == "SUMMARY"
    ):  # there are more models than the page shows at once
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "knob"
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(value).to_have_text("0.7 · mostly sharp")
    assert knob.evaluate("knob => knob.ariaValueText") == "0.7 · mostly sharp"
    with page.expect_request(lambda request: request.method == "POST" and request.url.endswith("/v1/jobs")) as sent:
        choose(page, draw("cat.png", (40, 30)), factor=2)
    fields = json.loads(sent.value.post_data or "")
    assert (fields["model"], fields["strength"]) == ("firm", 0.7)
    done(page)
    working(page, "by firm at 0.7 on")
    for key, words in (("Home", "0 · faithful"), ("End", "1 · sharp")):
        knob.press(key)
        expect(value).to_have_text(words)
    choose_model(page, "soft")
    expect(knob).to_be_hidden()
    with page.expect_request(lambda request: request.method == "POST" and request.url.endswith("/v1/jobs")) as sent:
        choose(page, draw("dog.png", (40, 30)), factor=2)
    assert "strength" not in json.loads(sent.value.post_data or "")
    choose_model(page, "firm")
    expect(knob).to_have_value(str(mixable.DEFAULT))


def test_an_image_is_sent_without_the_store_if_the_browser_cannot_reach_it(
    visit: Visit, page: Page, draw: Draw, tmp_path: Path
) -> None:
    page.route("**/upres/uploads/**", lambda route: route.abort())
    choose_model(page, "soft")
    choose(page, draw("cat.png", (40, 30)), factor=2)
    done(page)
    visit.wrong = [text for text in visit.wrong if "ERR_FAILED" not in text]
