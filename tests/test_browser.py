"""The page and the browser library, in a real browser, as people use them."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from redis import Redis

from core import access
from infra.local import Local
from tests.browser import SECONDS, Visit, chromium
from tests.conftest import ROOT, SAMPLES, body, encoded, http_server, opened
from tests.test_outages import function

AXE = ROOT / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
PAGE_BYTES = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """A visitor without a past; what the console complains about fails the test."""
    with browser.new_context(viewport={"width": 1100, "height": 900}) as context:
        visiting = Visit(context.new_page())
        yield visiting
        assert visiting.wrong == []


@pytest.fixture
def page(visit: Visit, local: Local) -> Page:
    visit.page.goto(local.url)
    return visit.page


@pytest.fixture
def draw(tmp_path: Path) -> Callable[[str, tuple[int, int], int], Path]:
    """An image file of some size, each time another."""
    numbers = iter(range(256))

    def make(name: str, size: tuple[int, int] = (120, 80), seed: int = 0) -> Path:
        with Image.open(SAMPLES / "chelsea.png") as image:
            photo = image.convert("RGB").resize(size)
        photo.putpixel((0, 0), (next(numbers), seed, time.time_ns() % 256))
        (tmp_path / name).write_bytes(encoded(photo, "PNG"))
        return tmp_path / name

    return make


Draw = Callable[..., Path]


def choose(page: Page, *files: Path, factor: int = 4) -> None:
    page.locator(f"input[name=factor][value='{factor}']").check(force=True)
    page.set_input_files("#files", list(files))


def done(page: Page, index: int = 0) -> None:
    """Until an image is done; the latest is the first."""
    expect(page.locator(".card").nth(index).locator(".done")).to_be_visible(timeout=SECONDS * 1000)


def working(page: Page, what: str = "Enlarging") -> None:
    expect(page.locator(".card .state").first).to_contain_text(what, timeout=SECONDS * 1000)


def percent(page: Page) -> float:
    return float(page.locator(".card progress").first.evaluate("bar => bar.value"))


def test_from_a_file_to_a_download(page: Page, draw: Draw) -> None:
    photo = draw("cat.png", (440, 290))
    choose(page, photo, factor=8)
    working(page)
    expect(page.locator(".size")).to_have_text("440×290 → 3520×2320")
    seen = percent(page)
    canvas = page.locator(".tiles")
    expect(canvas).to_have_attribute("data-tiles", re.compile(r"\d+"), timeout=SECONDS * 1000)
    assert "tile" in page.locator(".state").inner_text()
    assert percent(page) > seen
    painted = canvas.evaluate("c => c.getContext('2d').getImageData(20, 20, 1, 1).data[3]")
    assert painted == 255
    done(page)
    after = page.locator("img.after")
    assert after.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [3520, 2320]
    with page.expect_download() as download:
        page.locator(".download").click()
    assert download.value.suggested_filename == "cat_x8.png"
    assert opened(Path(download.value.path()).read_bytes()).size == (3520, 2320)
    page.locator("summary").click()
    assert page.locator("dl div").count() == 5
    assert "s" in page.locator("dd").first.inner_text()


def test_before_and_after_by_pointer_and_keyboard(page: Page, draw: Draw) -> None:
    choose(page, draw("cat.png"))
    done(page)
    viewer, wipe = page.locator(".viewer"), page.locator(".wipe input")

    def cut() -> float:
        return float(viewer.evaluate("v => parseFloat(v.style.getPropertyValue('--cut'))"))

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
    assert cut() != pytest.approx(20, abs=1)  # the edge stays on the screen, the image moves below it
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


def test_a_reload_goes_on(page: Page, draw: Draw) -> None:
    choose(page, draw("cat.png", (430, 280)), factor=8)
    working(page)
    page.reload()
    working(page)
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator("h2")).to_have_text("cat.png")
    expect(page.locator(".before")).to_be_visible()  # from a small copy, since the file is not kept
    done(page)
    page.reload()  # a finished one is shown again as well
    done(page)
    assert page.locator("img.before").evaluate("image => image.naturalWidth") == 3440
    page.locator(".remove").click()
    page.reload()
    expect(page.locator(".card")).to_have_count(0)


def test_a_restart_of_the_server_is_bridged(visit: Visit, local: Local, draw: Draw) -> None:
    page = visit.page
    page.goto(local.url)
    choose(page, draw("cat.png", (435, 285)), factor=8)
    working(page)
    local.stop("function")
    working(page, "The connection is lost")
    local.start("function")
    done(page)
    visit.wrong = [text for text in visit.wrong if "ERR_" not in text]  # the browser's own words about it


def test_a_lost_network_is_bridged(visit: Visit, local: Local, draw: Draw) -> None:
    page = visit.page
    page.goto(local.url)
    choose(page, draw("cat.png", (425, 285)), factor=8)
    working(page)
    page.context.set_offline(True)
    local.stop("function")  # Chromium's offline mode leaves open what is open
    working(page, "The connection is lost")
    local.start("function")
    page.context.set_offline(False)
    done(page)
    visit.wrong = [text for text in visit.wrong if "ERR_" not in text]


def test_many_at_once(page: Page, draw: Draw) -> None:
    """More than a browser has connections."""
    choose(page, *(draw(f"{number}.png", (60 + number, 50)) for number in range(9)), factor=2)
    expect(page.locator(".card")).to_have_count(9)
    for index in range(9):
        done(page, index)
    sizes = page.locator("img.after").evaluate_all("images => images.map((image) => image.naturalWidth).sort()")
    assert sizes == [120 + 2 * number for number in range(9)]
    assert page.locator("h2").all_inner_texts() == [f"{number}.png" for number in reversed(range(9))]


def test_what_is_no_image_is_said(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    page.set_input_files("#files", tmp_path / "notes.txt")
    working(page, "The data is not an image; send a PNG, JPEG, WebP, AVIF, TIFF, BMP or GIF file.")
    expect(page.locator(".again")).to_be_hidden()
    expect(page.locator("#news")).to_contain_text("notes.txt: The data is not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    page.set_input_files("#files", tmp_path / "empty.png")
    expect(page.locator("#trouble")).to_contain_text("There is no file in that")
    page.locator(".address button").click()
    expect(page.locator("#trouble")).to_contain_text("Give the address of an image")


def test_addresses_and_dropped_and_pasted_images(page: Page, draw: Draw) -> None:
    data = draw("dropped.png").read_bytes()
    with http_server(body(draw("far.png").read_bytes())) as url:
        page.locator("input[name=url]").fill(f"{url}/far%20away.png")
        page.keyboard.press("Enter")
        done(page)
    expect(page.locator("h2").first).to_have_text("far away.png")
    for kind in ("drop", "paste"):
        page.evaluate(
            """([kind, bytes]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(bytes)], kind + ".png", { type: "image/png" }));
                const init = { bubbles: true, cancelable: true };
                const event = kind === "drop" ? new DragEvent(kind, { ...init, dataTransfer: transfer })
                    : new ClipboardEvent(kind, { ...init, clipboardData: transfer });
                document.body.dispatchEvent(event);
            }""",
            [kind, list(data)],
        )
        expect(page.locator("h2").first).to_have_text(f"{kind}.png")
        done(page)


def test_a_job_is_cancelled_and_tried_again(page: Page, draw: Draw) -> None:
    choose(page, draw("cat.png", (431, 283)), factor=8)
    working(page)
    page.locator(".cancel").click()
    working(page, "Cancelled.")
    page.locator(".again").click()
    working(page)
    page.locator(".cancel").click()
    working(page, "Cancelled.")


def test_large_files_are_uploaded_with_progress(visit: Visit, local: Local, draw: Draw) -> None:
    """Large is 4 MB; here a thousandth of that."""
    script = requests.get(f"{local.url}/web/upres.js", timeout=20).text.replace("4_000_000", "4_000")
    visit.page.route("**/web/upres.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
    visit.page.goto(local.url)
    puts: list[str] = []
    visit.page.on("request", lambda request: puts.append(request.url) if request.method == "PUT" else None)
    choose(visit.page, draw("cat.png"))
    done(visit.page)
    assert len(puts) == 1
    assert not puts[0].startswith(local.url)


def test_an_api_key_is_asked_for(visit: Visit, local: Local, redis: Redis, tmp_path: Path, draw: Draw) -> None:
    _, text = access.create(redis, "somebody")
    page = visit.page
    for url in function(local, tmp_path, UPRES_ACCESS="keys"):
        page.goto(url)
        choose(page, draw("cat.png", (433, 281)), factor=8)
        working(page, "Send an API key")
        page.locator("input[name=key]").fill(text)
        page.locator("input[name=key]").blur()
        page.locator(".again").click()
        working(page)
        page.reload()  # the key is gone, the job's token is not
        expect(page.locator(".tiles")).to_have_attribute("data-tiles", re.compile(r"\d+"), timeout=SECONDS * 1000)
        done(page)
    visit.wrong = [text for text in visit.wrong if "401" not in text]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1100])
def test_nothing_is_out_of_reach(page: Page, draw: Draw, tmp_path: Path, scheme: Any, width: int) -> None:
    """On a phone and a desk, in both colour schemes: nothing sticks out, and axe finds nothing serious."""
    assert AXE.exists(), "axe-core is missing; `make test` installs it"
    (tmp_path / "notes.txt").write_text("hello")
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    choose(
        page, draw("a photo with a name that is longer than a phone is wide, and then some.png"), tmp_path / "notes.txt"
    )
    done(page, 1)
    working(page, "not an image")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert serious == [], json.dumps(serious, indent=1)


def test_the_page_works_by_keyboard_alone(page: Page, draw: Draw) -> None:
    choose(page, draw("cat.png"))
    done(page)
    page.locator("body").click(position={"x": 5, "y": 5})
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.className + ' ' + document.activeElement.name + document.activeElement.id"
            )
        )
    for wanted in ("factor", "model", "format", "files", "url", "viewer", "download", "copy"):
        assert any(wanted in one for one in reached), (wanted, reached)


def test_the_page_is_light_and_needs_nobody_else(visit: Visit, local: Local) -> None:
    asked: list[tuple[str, int]] = []
    visit.page.on("response", lambda answer: asked.append((answer.url, len(answer.body()))))
    visit.page.goto(local.url, wait_until="networkidle")
    own = [size for url, size in asked if "/v1/" not in url]
    assert len(own) == 6
    assert sum(own) <= PAGE_BYTES
    assert all(url.startswith(local.url) for url, _ in asked)


def test_it_is_painted_before_any_answer_of_the_api(visit: Visit, local: Local) -> None:
    visit.page.route("**/v1/**", lambda route: None)  # an API that never answers
    visit.page.goto(local.url, wait_until="load")
    expect(visit.page.locator("#drop")).to_be_visible()
    assert visit.page.evaluate("performance.getEntriesByType('paint').length") > 0


def test_the_content_security_policy_holds(visit: Visit, local: Local) -> None:
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


PAGE_ELSEWHERE = """<!doctype html><title>elsewhere</title><script type="module">
import {{ Upres, UpresError }} from "{url}/web/upres.js";
const upres = new Upres();
window.use = async (bytes) => {{
  const file = new File([new Uint8Array(bytes)], "cat.png");
  const job = await upres.submit(file, {{ factor: 2 }});
  const types = [];
  const result = await upres.subscribe(job, (event) => types.push(event.type));
  const refused = await upres.submit("nonsense").catch((error) => error instanceof UpresError && error.code);
  const other = await upres.submit("http://192.0.2.1/x.png", {{ factor: 2 }});
  const now = await upres.cancel(other);
  const why = await upres.subscribe(other).catch((error) => error.code);
  const unknown = await upres.subscribe({{ ...job, status_url: job.status_url.replace(/.$/, "x"),
    events_url: job.events_url.replace(/.\\/events/, "x/events") }}).catch((error) => error.code);
  const again = await upres.subscribe(JSON.parse(JSON.stringify(job)));
  const size = await upres.estimate({{ width: 10, height: 10 }});
  const sizes = {{ width: result.width, again: again.width, size: size.width }};
  return {{ types, refused, status: now.status, why, unknown, ...sizes }};
}};
</script>"""


def test_other_peoples_pages_may_use_the_library(visit: Visit, local: Local, tmp_path: Path, png: bytes) -> None:
    for url in function(local, tmp_path, UPRES_ACCESS="open"):
        html = PAGE_ELSEWHERE.format(url=url).encode()
        with http_server(body(html, headers={"Content-Type": "text/html"})) as elsewhere:
            visit.page.goto(elsewhere)
            visit.page.wait_for_function("typeof window.use === 'function'")
            told = visit.page.evaluate("bytes => use(bytes)", list(png))
    assert told["types"][0] == "queued"
    assert told["types"][-1] == "succeeded"
    assert (told["width"], told["again"], told["size"]) == (128, 128, 40)
    assert told["refused"] == "invalid_image_url"
    assert told["why"] in ("cancelled", "url_refused", "url_unreachable")
    assert told["unknown"] == "job_not_found"
    visit.wrong = [text for text in visit.wrong if "status of 4" not in text]
