"""Several models or strengths for one image, wiped against each other on the page, in a real browser."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.support import mixable
from tests.support.browser import (
    ENLARGING_SECONDS,
    Draw,
    Visit,
    choose,
    choose_model,
    done,
    serious_violations,
    working,
)
from tests.support.servers import body, http_server
from upres.core import registry_changes
from upres.core.storage import Store
from upres.embedded.stack import Local

THREE = ["plum, faithful", "plum at 0.4", "plum, sharp"]


@pytest.fixture(autouse=True, scope="module")
def small_models(store: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The quick models `pear`, and `plum`, whose strength can be chosen."""
    _base, plum = mixable.pair(tmp_path_factory.mktemp("models"), ("pear", "plum"))
    registry_changes.push(store, plum.files["golden.png"].parent)


@contextmanager
def paused_worker(local: Local) -> Iterator[None]:
    """The worker does nothing for the block."""
    worker = local.children["worker"].process
    worker.suspend()
    try:
        yield
    finally:
        worker.resume()


def enlarged(page: Page, draw: Draw, name: str = "cat.png") -> None:
    choose_model(page, "plum")
    choose(page, draw(name, (120, 90)))
    done(page)


def compare(page: Page, *wanted: str) -> None:
    """Compare with these; by default with those that the page suggests."""
    page.locator(".compare").click()
    expect(page.locator(".choose")).to_be_visible()
    for one in page.locator(".variants label").all() if wanted else ():
        if one.inner_text() not in wanted:
            one.locator("input").uncheck()
    for name in wanted:
        page.locator(".variants").get_by_label(name, exact=True).check()
    page.locator(".start").click()


def shows(page: Page, *names: str) -> None:
    """Wait until these images are in the viewer, from left to right."""
    expect(page.locator(".viewer .tag")).to_have_text(list(names), timeout=ENLARGING_SECONDS * 1000)


def clips(page: Page) -> list[tuple[float, float]]:
    """Left and right bound of each visible image, in percent of its width, from left to right."""
    images = page.locator(".layers img:visible").evaluate_all("images => images.map((image) => image.style.clipPath)")
    cut = [[float(side) for side in re.findall(r"[\d.]+", image)] for image in images]  # shorter if sides are equal
    return sorted((sides[3] if len(sides) == 4 else sides[1], 100 - sides[1]) for sides in cut)


def submitted(requests: list[Request]) -> list[Request]:
    return [one for one in requests if one.method in ("POST", "PUT")]


def test_one_upload_is_compared_by_three_strengths_and_a_reload_keeps_it(page: Page, draw: Draw) -> None:
    enlarged(page, draw)
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request))
    page.locator(".compare").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".variants input").first).to_be_focused()
    assert page.locator(".variants input:checked").count() == 2
    expect(page.get_by_label("faithful", exact=True).locator("visible=true")).to_be_disabled()  # three are enough
    page.keyboard.press("Enter")
    shows(page, *THREE)
    jobs = [json.loads(one.post_data or "") for one in submitted(sent)]
    assert {job["image_key"] for job in jobs} == {jobs[0]["image_key"]}
    assert sorted(job["strength"] for job in jobs) == [0, 1]
    bounds = [bound for one in clips(page) for bound in one]
    assert bounds == pytest.approx([0, 100 / 3, 100 / 3, 200 / 3, 200 / 3, 100], abs=0.1)
    sent.clear()
    page.reload()
    shows(page, *THREE)
    assert submitted(sent) == []
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download plum, sharp of cat.png").click()
    assert saved.value.suggested_filename == "cat_x4.png"


def test_edges_move_by_keyboard_and_pointer_and_push_each_other(page: Page, draw: Draw) -> None:
    enlarged(page, draw)
    compare(page)
    shows(page, *THREE)
    sliders = page.locator(".wipes input")
    assert sliders.nth(1).get_attribute("aria-label") == "Edge between plum at 0.4 and plum, sharp"
    sliders.nth(0).press("Home")
    assert clips(page)[0] == (0, 0)
    sliders.nth(1).press("Home")
    assert clips(page) == [(0, 0), (0, 0), (0, 100)]
    sliders.nth(0).press("End")
    assert clips(page) == [(0, 100), (100, 100), (100, 100)]
    box = page.locator(".viewer").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 40)
    page.mouse.down()  # takes the nearest edge
    page.mouse.up()
    bounds = sorted({bound for one in clips(page) for bound in one})
    assert bounds == pytest.approx([0, 60, 100], abs=1)


def test_another_model_and_what_is_there_before_can_be_shown(page: Page, draw: Draw) -> None:
    enlarged(page, draw)
    compare(page, "pear")
    shows(page, "plum at 0.4", "pear")
    before = page.locator(".shown").get_by_label("before")
    before.check()
    shows(page, "before", "plum at 0.4", "pear")
    page.locator(".shown").get_by_label("plum at 0.4").uncheck()
    shows(page, "before", "pear")
    expect(before).to_be_disabled()  # one alone is nothing to compare
    compare(page, "pear", "plum, sharp")
    shows(page, "before", "plum, sharp", "pear")


def test_a_failed_part_is_told_by_name_and_the_others_stay(visit: Visit, page: Page, draw: Draw) -> None:
    enlarged(page, draw)
    detail = "The model is away today."

    def refuse(route: Route) -> None:
        if json.loads(route.request.post_data or "").get("strength") != 1:
            return route.fallback()
        refusal = {"code": "model_unavailable", "detail": detail, "retryable": False}
        return route.fulfill(status=422, content_type="application/problem+json", body=json.dumps(refusal))

    page.route("**/v1/jobs", refuse)
    compare(page)
    shows(page, "plum, faithful", "plum at 0.4")
    failed = page.locator(".parts .failed")
    expect(failed).to_have_count(1)
    expect(failed).to_contain_text(f"plum, sharp {detail}")
    visit.wrong = [text for text in visit.wrong if "422" not in text]


def test_a_part_can_be_cancelled_and_the_rest_survives_a_reload(page: Page, local: Local, draw: Draw) -> None:
    enlarged(page, draw)
    with paused_worker(local):
        compare(page, "plum, sharp", "pear")
        parts = page.locator(".parts li")
        expect(parts.filter(has_text="plum, sharp")).to_contain_text("Queued")
        expect(parts.filter(has_text="pear")).to_contain_text("Queued")
        page.get_by_role("button", name="Cancel plum, sharp of cat.png").click()
        expect(parts.filter(has_text="plum, sharp")).to_contain_text("Cancelled.")
        expect(page.locator("#news")).to_have_text("plum, sharp of cat.png: Cancelled.")
        page.reload()
        expect(parts.filter(has_text="pear")).to_contain_text("Queued", timeout=ENLARGING_SECONDS * 1000)
        expect(parts.filter(has_text="plum, sharp")).to_contain_text("Cancelled.")
    shows(page, "plum at 0.4", "pear")


def test_removing_a_card_cancels_its_comparison(page: Page, local: Local, draw: Draw) -> None:
    enlarged(page, draw)
    with paused_worker(local):
        compare(page)
        expect(page.locator(".parts")).to_contain_text("Queued")
        expect(page.locator(".parts li").nth(1)).to_contain_text("Queued")
        cancelled: list[str] = []
        page.on("request", lambda one: cancelled.append(one.url) if one.method == "DELETE" else None)
        page.locator(".remove").click()
        expect(page.locator(".card")).to_have_count(0)
    assert len(cancelled) == 2


def controls(page: Page) -> Locator:
    return page.locator(".card :is(button, input, a, summary):visible")


@pytest.mark.parametrize("width", [390, 1100])
def test_a_comparison_fits_a_phone_and_axe_finds_nothing(page: Page, draw: Draw, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme="dark" if width == 390 else "light")
    enlarged(page, draw, "a photo with a name that is longer than a phone is wide, and then some.png")
    compare(page)
    shows(page, *THREE)
    page.locator(".compare").click()
    expect(page.locator(".choose")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [control.bounding_box() for control in controls(page).all()]
    assert all(box and box["height"] >= 16 for box in boxes)
    violations = serious_violations(page)
    assert violations == [], json.dumps(violations, indent=1)


def test_an_image_that_is_on_the_web_is_compared_by_its_address(page: Page, local: Local, draw: Draw) -> None:
    choose_model(page, "plum")
    with http_server(body(draw("far.png").read_bytes())) as url:
        page.locator("input[name=url]").fill(f"{url}/far.png")
        page.keyboard.press("Enter")
        done(page)
        working(page, "by plum at 0.4")
        compare(page, "plum, faithful")
        shows(page, "plum, faithful", "plum at 0.4")
