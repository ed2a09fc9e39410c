"""Tests of the JavaScript library upres.js in a page from another origin."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.browser import Visit
from tests.support.foreign import ANSWERS, STRANGERS, Foreign, raw
from tests.support.servers import body, function, http_server
from upres.embedded.stack import Local

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
  const five = await Promise.all([1, 2, 3, 4, 5].map(async (number) => {{
    const heard = [];
    const job = await upres.submit(new Blob([new Uint8Array(bytes), new Uint8Array(number)]), {{ factor: 2 }});
    await upres.subscribe(job, (event) => heard.push(event.type));
    return heard.includes("started") && heard.at(-1) === "succeeded";
  }}));
  const thrown = await upres.subscribe(job, () => {{ throw new Error("mine"); }}).catch((error) => error.message);
  const nothing = await upres.submit(undefined).catch((error) => error.code);
  const empty = await upres.submit(new File([], "a.png")).catch((error) => `${{error.message}} ${{error.code}}`);
  const signal = AbortSignal.abort();
  const given = await upres.estimate({{ width: 1, height: 1 }}, {{ signal }}).catch((error) => error.name);
  const linked = (await fetch(upres.link(job))).headers.get("Content-Type");
  const more = {{ five, thrown, nothing, empty, given, linked }};
  const sizes = {{ width: result.width, again: again.width, size: size.width }};
  return {{ types, refused, status: now.status, why, unknown, ...sizes, ...more }};
}};
</script>"""


def test_a_page_from_another_origin_can_use_the_library(visit: Visit, local: Local, tmp_path: Path, png: bytes) -> None:
    for url in function(local, tmp_path, UPRES_ACCESS="open", UPRES_CORS_ORIGINS="*"):
        html = PAGE_ELSEWHERE.format(url=url).encode()
        with http_server(body(html, headers={"Content-Type": "text/html"})) as elsewhere:
            visit.page.goto(elsewhere)
            visit.page.wait_for_function("typeof window.use === 'function'")
            received = visit.page.evaluate("bytes => use(bytes)", list(png))
    assert received["types"][0] == "queued"
    assert received["types"][-1] == "succeeded"
    assert (received["width"], received["again"], received["size"]) == (128, 128, 40)
    assert received["refused"] == "invalid_image_url"
    assert received["why"] in ("cancelled", "url_refused", "url_unreachable")
    assert received["unknown"] == "job_not_found"
    assert received["five"] == [True] * 5
    assert (received["thrown"], received["nothing"], received["given"]) == ("mine", "unreadable", "AbortError")
    assert received["empty"] == "The file is empty. not_an_image"
    assert received["linked"] == "image/png"
    visit.wrong = [text for text in visit.wrong if "status of 4" not in text]


ABORTED = """async (url) => {
  const { Upres } = await import(`${url}/web/upres.js`);
  const sent = [];
  const open = XMLHttpRequest.prototype.open;
  XMLHttpRequest.prototype.open = function (...given) { sent.push(given[0]); return open.apply(this, given); };
  const outcome = async (status, answer, image) => {
    const controller = new AbortController();
    window.fetch = async () => {
      controller.abort(); // after the answer has come, and before it is read
      return new Response(JSON.stringify(answer), { status });
    };
    const begin = performance.now();
    const submitted = new Upres().submit(image, { factor: 2, signal: controller.signal });
    const error = await submitted.catch((error) => error.name);
    return [error, performance.now() - begin < 400];
  };
  const link = { image_key: "k", upload_url: `${url}/put` };
  const upload = await outcome(201, link, new Blob([new Uint8Array(700_001)]));
  const retry = await outcome(503, {}, new Blob([new Uint8Array(5)]));
  return { upload, retry, sent };
}"""


def test_an_abort_between_two_requests_stops_the_upload_and_the_pause(visit: Visit, local: Local) -> None:
    """As in React's StrictMode: an effect is cleaned up while the first request is on its way."""
    visit.page.goto(local.url)
    received = visit.page.evaluate(ABORTED, local.url)
    assert received == {"upload": ["AbortError", True], "retry": ["AbortError", True], "sent": []}


HIDDEN_FOR_LONG = """async ([url, events_url]) => {
  const { Upres } = await import(`${url}/web/upres.js`);
  const types = [];
  const job = { job_id: "x", status_url: events_url, events_url };
  const ended = new Upres().subscribe(job, (event) => types.push(event.type)).catch((error) => error.code);
  while (!types.length) await new Promise((resolve) => setTimeout(resolve, 10));
  const now = Date.now;
  for (const [hidden, later] of [[true, 0], [false, 5_000], [true, 10_000], [false, 40_000]]) {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    Date.now = () => now() + later;
    document.dispatchEvent(new Event("visibilitychange"));
  }
  return [await ended, types];
}"""


def test_a_page_that_was_hidden_for_long_opens_a_new_stream(visit: Visit, local: Local) -> None:
    """A phone drops the connections of hidden pages, and the browser notices no error: here the server stays silent."""
    asked: list[str] = []
    over = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Access-Control-Allow-Origin", "*")
        handler.end_headers()
        kind = "queued" if len(asked) == 1 else "cancelled"
        handler.wfile.write(f'id: {len(asked)}-0\ndata: {{"type": "{kind}"}}\n\n'.encode())
        over.wait(30 if len(asked) == 1 else 0)

    visit.page.goto(local.url)
    with http_server(answer) as url:
        assert visit.page.evaluate(HIDDEN_FOR_LONG, [local.url, f"{url}/events"]) == [
            "cancelled",
            ["queued", "cancelled"],
        ]
        over.set()
    assert asked == ["/events", "/events?last_event_id=1-0"]


EACH_CALL = """async ([url, count]) => {
  const { Upres, UpresError } = await import(`${url}/web/upres.js`);
  const outcomes = {};
  const attempt = async (number) => {
    const base = `${location.origin}/${number}`;
    const upres = new Upres(base);
    const [status_url, events_url] = [`${base}/v1/jobs/x`, `${base}/v1/jobs/x/events?token=t`];
    const job = { job_id: "x", status_url, events_url };
    const calls = {
      submit: () => upres.submit(new Blob(["x"]), { factor: 2 }),
      upload: () => upres.submit(new Blob([new Uint8Array(700_001)]), { factor: 2 }),
      status: () => upres.status(job),
      cancel: () => upres.cancel(job),
      preview: () => upres.preview(job),
      models: () => upres.models(),
      estimate: () => upres.estimate({ width: 1, height: 1 }),
      subscribe: () => upres.subscribe(job, () => {}, { signal: AbortSignal.timeout(600) }),
    };
    await Promise.all(Object.entries(calls).map(async ([name, call]) => {
      const outcome = await call().then(() => "success", (error) => (
        error instanceof UpresError ? "error" : error.name === "TimeoutError" ? "no answer" : String(error)));
      (outcomes[`${number}`] ??= {})[name] = outcome;
    }));
  };
  await Promise.all([...Array(count).keys()].map(attempt));
  return outcomes;
}"""
MOST_REQUESTS = 7 * 6 + 12
"""Per server: seven calls, each with five retries, and a subscription with growing pauses for 0.6 s."""


@pytest.fixture
def strangers(visit: Visit, local: Local) -> Iterator[Foreign]:
    """A foreign server whose page uses upres.js, with pauses a tenth as long, and no locks between its clients."""
    script = requests.get(f"{local.url}/web/requests.js", timeout=20).text
    quick = re.sub(r"RETRY_MS = .*;", "RETRY_MS = [50, 100, 200, 400, 800];", script)
    assert quick != script
    headers = {"Access-Control-Allow-Origin": "*"}
    answer = {"body": quick, "content_type": "text/javascript", "headers": headers}
    visit.page.route("**/web/requests.js", lambda route: route.fulfill(**answer))
    visit.page.add_init_script("Object.defineProperty(navigator, 'locks', { value: undefined })")
    with Foreign() as server:
        server.answer = raw(200, b"<!doctype html><title>elsewhere</title>", Content_Type="text/html")
        visit.page.goto(server.url)
        yield server
    visit.wrong = []  # the browser's messages about the answers


def outcomes(visit: Visit, local: Local, server: Foreign, answers: list[bytes]) -> list[dict[str, str]]:
    """The outcome of each call to a server that gives one of the answers, for each of them."""
    server.answers = {str(number): answer for number, answer in enumerate(answers)}
    server.requests.clear()
    found = visit.page.evaluate(EACH_CALL, [local.url, len(answers)])
    redirects = {str(number): 21 if b"\r\nLocation" in answer else 1 for number, answer in enumerate(answers)}
    for number in server.answers:
        assert server.requests[number] <= MOST_REQUESTS * redirects[number], answers[int(number)]
    return [found[number] for number in server.answers]


def test_no_call_takes_a_foreign_answer_for_success(visit: Visit, local: Local, strangers: Foreign) -> None:
    for answer, found in zip(STRANGERS, outcomes(visit, local, strangers, list(STRANGERS.values())), strict=True):
        assert set(found.values()) <= {"error", "no answer"}, (answer, found)
        assert {name for name, outcome in found.items() if outcome == "no answer"} <= {"subscribe"}, (answer, found)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(answers=st.lists(ANSWERS, min_size=15, max_size=15))
def test_any_answer_ends_in_a_result_or_an_upres_error(
    visit: Visit, local: Local, strangers: Foreign, answers: list[bytes]
) -> None:
    for answer, found in zip(answers, outcomes(visit, local, strangers, answers), strict=True):
        assert set(found.values()) <= {"success", "error", "no answer"}, (answer, found)
