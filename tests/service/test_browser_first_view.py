"""The first view of a finished image: at 100 %, at the place with most to see, in a real browser."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, ViewportSize, expect

from tests.support import mixable
from tests.support.browser import Visit, choose, choose_model, done
from tests.support.images import encoded
from tests.support.servers import body, http_server
from upres.core import registry_changes
from upres.core.storage import Store
from upres.embedded.stack import Local

SIZE = (500, 400)
DETAIL = (410, 330)
"""Middle of the only part of the image in which there is something to see."""
MIDDLE = """() => {
  const [image, viewer] = [".layers", ".viewer"].map((name) => document.querySelector(name).getBoundingClientRect());
  const [x, y] = [viewer.left + viewer.width / 2 - image.left, viewer.top + viewer.height / 2 - image.top];
  return [x / image.width, y / image.height];
}"""
"""The point of the image in the middle of the viewer, 0 to 1."""
PIXELS = "() => document.querySelector('.layers').getBoundingClientRect().width * devicePixelRatio"


@pytest.fixture(autouse=True, scope="module")
def quick(store: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The quick model `quick`."""
    registry_changes.push(
        store, mixable.write(tmp_path_factory.mktemp("models"), "quick", 3).files["golden.png"].parent
    )


@pytest.fixture
def corner(tmp_path: Path) -> Path:
    """A grey image with a small pattern near a corner."""
    pixels = np.full((SIZE[1], SIZE[0], 3), 120, np.uint8)
    x, y = DETAIL
    pixels[y - 20 : y + 20, x - 20 : x + 20] = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    (tmp_path / "corner.png").write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    return tmp_path / "corner.png"


def enlarge(page: Page, file: Path) -> None:
    choose_model(page, "quick")
    choose(page, file)
    done(page)


def is_visible(page: Page) -> bool:
    """Whether the detail is in the viewer, and the viewer shows a part of the image only."""
    middle = page.evaluate(MIDDLE)
    wide = page.locator(".viewer").evaluate("viewer => viewer.clientWidth * devicePixelRatio") / (4 * SIZE[0])
    return wide < 0.6 and all(
        abs(at - spot / side) < wide / 2 for at, spot, side in zip(middle, DETAIL, SIZE, strict=True)
    )


def test_the_detail_is_shown_pixel_by_pixel_and_a_button_shows_the_whole(page: Page, corner: Path) -> None:
    enlarge(page, corner)
    assert page.evaluate(PIXELS) == pytest.approx(4 * SIZE[0], abs=1)
    expect(page.locator(".percent")).to_have_text("100 %")
    assert is_visible(page)
    whole = page.locator(".zoom .fit")
    expect(whole).to_have_text("Show whole")
    whole.click()
    shown = page.locator(".viewer").evaluate("viewer => viewer.getBoundingClientRect().width")
    assert page.evaluate(PIXELS) == pytest.approx(shown, abs=1)
    expect(whole).to_have_text("Show 100 %")
    whole.click()
    expect(page.locator(".percent")).to_have_text("100 %")
    page.reload()
    done(page)
    assert page.evaluate(PIXELS) == pytest.approx(4 * SIZE[0], abs=1)
    assert is_visible(page)


def test_on_a_phone_a_pixel_of_the_image_is_a_pixel_of_the_screen(browser: Browser, local: Local, corner: Path) -> None:
    phone: ViewportSize = {"width": 390, "height": 844}
    with browser.new_context(viewport=phone, device_scale_factor=2, has_touch=True, is_mobile=True) as context:
        page = context.new_page()
        page.goto(local.url)
        enlarge(page, corner)
        assert page.evaluate(PIXELS) == pytest.approx(4 * SIZE[0], abs=2)
        assert is_visible(page)
        action = "viewer => getComputedStyle(viewer).touchAction"
        assert (
            page.locator(".viewer").evaluate(action) == "pan-y"
        )  # a finger scrolls the page, until it moved the image
        page.locator(".zoom .in").tap()
        assert page.locator(".viewer").evaluate(action) == "none"


def test_a_small_result_is_not_blown_up(page: Page, tmp_path: Path) -> None:
    Image.new("RGB", (100, 50), "red").save(tmp_path / "small.png")
    enlarge(page, tmp_path / "small.png")
    assert page.evaluate(PIXELS) == pytest.approx(400, abs=1)
    expect(page.locator(".zoom .fit")).to_be_disabled()


def without_cors(route: Route) -> None:
    """Answer as a store that lets pages of another site read it. Playwright adds the header if there is none."""
    answer = route.fetch()
    route.fulfill(response=answer, headers={**answer.headers, "access-control-allow-origin": "https://example.org"})


def without_cors_after_redirect(route: Route) -> None:
    """Fail as a redirect to such a store does: Playwright passes only the first request of a chain to a route."""
    if route.request.headers.get("sec-fetch-mode") == "cors" or "origin" in route.request.headers:
        route.abort()
    else:
        route.continue_()


def test_the_page_looks_at_the_file_or_the_middle_if_the_store_lets_it_read_no_results(
    visit: Visit, page: Page, corner: Path
) -> None:
    page.route("**/upres/results/**", without_cors)
    page.route("**/original*", without_cors_after_redirect)
    enlarge(page, corner)
    assert page.evaluate(PIXELS) == pytest.approx(4 * SIZE[0], abs=1)
    assert is_visible(page)
    with http_server(body(corner.read_bytes())) as url:
        page.locator("input[name=url]").fill(f"{url}/far.png")
        page.keyboard.press("Enter")
        done(page)
    expect(page.locator("h2").first).to_have_text("far.png")
    assert page.locator("img.after").first.evaluate("image => image.naturalWidth") == 4 * SIZE[0]
    assert page.evaluate(MIDDLE) == pytest.approx([0.5, 0.5], abs=0.01)
    visit.wrong = [text for text in visit.wrong if "CORS" not in text and "ERR_FAILED" not in text]


def test_the_busiest_window_is_found_and_an_even_image_has_its_middle(page: Page) -> None:
    busiest = "([values, ...sizes]) => import('/web/detail.js').then(({ busiest }) => busiest(values, ...sizes))"
    values = np.zeros((6, 8), int)
    values[4, 6] = values[5, 7] = 3
    values[0, 0] = 5
    assert page.evaluate(busiest, [values.ravel().tolist(), 8, 6, 2, 2]) == [7, 5]
    assert page.evaluate(busiest, [values.ravel().tolist(), 8, 6, 8, 6]) == [4, 3]
    assert page.evaluate(busiest, [[0] * 48, 8, 6, 2, 2]) == [4, 3]
