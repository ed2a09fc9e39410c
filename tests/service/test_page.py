"""The web page in a real browser: pointer, touch and keyboard input, accessibility, size, and security policy."""

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import SECONDS, Draw, Visit, choose, done, serious_violations
from upres.embedded.stack import Local

PAGE_BYTES = 96_000
SAMPLES_BYTES = 60_000


def test_comparison_slider_zoom_and_pan_by_pointer_and_keyboard(page: Page, draw: Draw) -> None:
    choose(page, draw("cat.png"))
    done(page)
    viewer, wipe = page.locator(".viewer"), page.locator(".wipes input")

    def cut() -> float:
        """The position of the slider in the image, in percent of the width."""
        clipped = page.locator(".before").evaluate("image => image.style.clipPath")
        return 100 - float(clipped.split()[1].removesuffix("%"))

    assert cut() == pytest.approx(50)
    wipe.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert cut() == pytest.approx(55)
    box = viewer.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.55, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 50, steps=5)
    page.mouse.up()
    assert cut() == pytest.approx(20, abs=1)
    page.locator(".zoom .in").click()
    page.locator(".zoom .in").click()
    scale = "v => new DOMMatrix(getComputedStyle(v).transform)"
    layers = page.locator(".layers")
    assert layers.evaluate(f"v => ({scale})(v).a") == pytest.approx(2.25)
    assert cut() != pytest.approx(20, abs=1)  # the slider keeps its place on the screen while the image is zoomed
    before = layers.evaluate(f"v => ({scale})(v).e")
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 80, steps=5)
    page.mouse.up()
    assert layers.evaluate(f"v => ({scale})(v).e") == pytest.approx(before - box["width"] * 0.1, abs=2)
    viewer.focus()
    page.keyboard.press("0")
    assert layers.evaluate(f"v => ({scale})(v).a") == 1
    page.keyboard.press("+")
    assert layers.evaluate(f"v => ({scale})(v).a") == 1.5


def test_tiff_size_is_shown_and_the_original_image_is_clipped(
    visit: Visit, page: Page, photo: Image.Image, tmp_path: Path
) -> None:
    photo.save(tmp_path / "scan.tif")
    Image.new("RGBA", (50, 300), (255, 0, 0, 0)).save(tmp_path / "tall.png")
    choose(page, tmp_path / "scan.tif", tmp_path / "tall.png")
    done(page)
    done(page, 1)
    expect(page.locator(".size").first).to_have_text("64×48 → 256×192")
    shape = page.locator(".viewer").nth(1).evaluate("v => v.clientWidth / v.clientHeight")
    assert shape == pytest.approx(50 / 300, rel=0.02)
    page.locator(".zoom .fit").nth(1).click()
    clip = page.locator(".before").nth(1).evaluate("i => getComputedStyle(i).clipPath")
    assert clip == "inset(0px 50% 0px 0%)"  # else the original is visible through transparent parts of the result


def test_two_fingers_zoom_and_one_finger_pans(browser: Browser, local: Local, draw: Draw) -> None:
    with browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True) as context:
        page = context.new_page()
        page.goto(local.url)
        choose(page, draw("cat.png", (200, 150)))
        done(page)
        page.locator(".zoom .fit").click()
        page.locator(".viewer").scroll_into_view_if_needed()
        box = page.locator(".viewer").bounding_box()
        assert box
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        fingers = context.new_cdp_session(page)

        def touch(kind: str, *points: tuple[float, float]) -> None:
            """Send a touch event with one finger at each point."""
            touches = [{"x": px, "y": py, "id": index} for index, (px, py) in enumerate(points)]
            fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

        touch("touchStart", (x - 40, y), (x + 40, y))  # at both sides of the slider, not on it
        for step in range(1, 6):
            touch("touchMove", (x - 40 - 16 * step, y), (x + 40 + 16 * step, y))
        touch("touchEnd")
        matrix = "v => new DOMMatrix(getComputedStyle(v).transform)"
        layers = page.locator(".layers")
        assert layers.evaluate(f"v => ({matrix})(v).a") == pytest.approx(3, rel=0.1)
        before = layers.evaluate(f"v => ({matrix})(v).e")
        touch("touchStart", (x + 80, y))
        for step in range(1, 6):
            touch("touchMove", (x + 80 - 6 * step, y))
        touch("touchEnd")
        assert layers.evaluate(f"v => ({matrix})(v).e") == pytest.approx(before - 30, abs=8)
        assert page.locator(".edge").evaluate("edge => edge.style.left") == "50%"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1100])
def test_page_fits_its_width_and_has_no_serious_axe_violations(
    page: Page, draw: Draw, tmp_path: Path, scheme: Any, width: int
) -> None:
    """Phone and desktop width, both colour schemes: no horizontal scrolling, no serious violation found by axe."""
    (tmp_path / "notes.txt").write_text("hello")
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    choose(
        page, draw("a photo with a name that is longer than a phone is wide, and then some.png"), tmp_path / "notes.txt"
    )
    done(page)
    expect(page.locator(".state").nth(1)).to_contain_text("not an image", timeout=SECONDS * 1000)
    page.locator("input[name=factor][value=size]").check(force=True)
    expect(page.get_by_label("Width")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    serious = serious_violations(page)
    assert serious == [], json.dumps(serious, indent=1)


def test_tab_key_reaches_the_controls_of_the_page(page: Page, draw: Draw) -> None:
    choose(page, draw("cat.png"))
    done(page)
    page.locator("body").click(position={"x": 5, "y": 5})
    reached = []
    for _ in range(26):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.className + ' ' + document.activeElement.name + document.activeElement.id"
            )
        )
    for wanted in ("factor", "model", "format", "files", "url", "viewer", "download", "copy", "compare"):
        assert any(wanted in one for one in reached), (wanted, reached)


def test_page_loads_19_small_files_and_none_from_other_hosts(visit: Visit, local: Local) -> None:
    asked: list[tuple[str, int]] = []
    visit.page.on("response", lambda answer: asked.append((answer.url, len(answer.body()))))
    visit.page.goto(local.url, wait_until="networkidle")
    own = [size for url, size in asked if "/v1/" not in url]
    assert len(own) == 19
    samples = sum(size for url, size in asked if url.endswith(".jpg"))
    assert samples <= SAMPLES_BYTES
    assert sum(own) - samples <= PAGE_BYTES
    assert all(url.startswith(local.url) for url, _ in asked)


def test_page_is_painted_before_the_api_responds(visit: Visit, local: Local) -> None:
    visit.page.route("**/v1/**", lambda route: None)  # the API never responds
    visit.page.goto(local.url, wait_until="load")
    expect(visit.page.locator("#drop")).to_be_visible()
    painted = "new Promise((resolve) => new PerformanceObserver(resolve).observe({ type: 'paint', buffered: true }))"
    visit.page.evaluate(f"{painted}.then(() => true)")


def test_content_security_policy_blocks_inline_scripts(visit: Visit, local: Local) -> None:
    page = visit.page
    page.goto(local.url)
    policy = requests.get(local.url, timeout=20).headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy
    page.evaluate(
        "const s = document.createElement('script'); s.textContent = 'window.evil = 1'; document.body.append(s)"
    )
    page.evaluate("document.body.setAttribute('onclick', 'window.evil = 1')")
    page.locator("h1").click()
    assert page.evaluate("window.evil") is None
    assert visit.wrong
    assert all("Content Security Policy" in text for text in visit.wrong)
    visit.wrong = []
