"""Web pages of other sites: where being in the network is the credential, they can neither submit jobs nor read."""

from collections.abc import Iterator

import pytest
import requests
from redis import Redis

from tests.support.browser import Visit
from tests.support.servers import JOB, body, function, http_server, post_job
from upres.core import keys
from upres.embedded.stack import Local

ELSEWHERE = "https://page.example"
ASKED = "authorization,cache-control,traceparent,tracestate,x-request-id"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": ASKED}
pytestmark = pytest.mark.without_worker


def allowed(url: str, origin: str) -> str | None:
    """The origin that may send requests and read answers; None if it may not."""
    headers = {"Origin": origin, **PREFLIGHT}
    answer = requests.options(f"{url}/v1/jobs", headers=headers, timeout=10)
    read = requests.get(f"{url}/healthz", headers={"Origin": origin}, timeout=10)
    found = {one.headers.get("Access-Control-Allow-Origin") for one in (answer, read)}
    assert len(found) == 1
    return found.pop()


@pytest.fixture(scope="module")
def opened(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from function(local, tmp_path_factory.mktemp("open"), UPRES_ACCESS="open")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"UPRES_ACCESS": "keys"}, "*"),
        ({"UPRES_ACCESS": "keys", "UPRES_CORS_ORIGINS": "https://mine.example"}, None),
        ({"UPRES_ACCESS": "open"}, None),
        ({"UPRES_ACCESS": "open", "UPRES_CORS_ORIGINS": ELSEWHERE}, ELSEWHERE),
        ({"UPRES_ACCESS": "open", "UPRES_CORS_ORIGINS": "*"}, "*"),
        ({}, None),
        ({"UPRES_CORS_ORIGINS": "*"}, None),
        ({"UPRES_CORS_ORIGINS": ELSEWHERE}, ELSEWHERE),
    ],
)
def test_which_pages_may_use_the_function(
    local: Local, tmp_path_factory: pytest.TempPathFactory, changed: dict[str, str], expected: str | None
) -> None:
    for url in function(local, tmp_path_factory.mktemp("function"), **changed):
        assert allowed(url, ELSEWHERE) == expected
        if changed.get("UPRES_ACCESS") != "keys":
            assert post_job(url, None, Origin=ELSEWHERE).status_code == (202 if expected else 403)
        if "UPRES_ACCESS" not in changed:
            assert allowed(url, "http://localhost:3000") == "http://localhost:3000"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
@pytest.mark.parametrize("origin", [ELSEWHERE, "null", "http://127.0.0.1.evil.example", "http://[::1", "https://"])
def test_a_foreign_page_cannot_submit_a_job_without_a_preflight(opened: str, kind: str, origin: str) -> None:
    headers = {"Origin": origin, "Content-Type": kind}
    answer = requests.post(f"{opened}/v1/jobs", json=JOB, headers=headers, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_page")
    assert "UPRES_CORS_ORIGINS" in answer.json()["detail"]
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_own_page_and_programs_without_a_page_submit_jobs(opened: str) -> None:
    for fine in (
        {},
        {"Origin": opened},
        {"Origin": "https://upres.intranet", "Host": "upres.intranet"},
        {"Origin": "https://upres.intranet", "X-Forwarded-Host": "upres.intranet"},
    ):
        assert post_job(opened, None, **fine).status_code == 202, fine


def test_the_own_page_works_behind_a_proxy_that_hides_the_address(
    local: Local, tmp_path_factory: pytest.TempPathFactory
) -> None:
    changed = {"UPRES_ACCESS": "open", "UPRES_PUBLIC_URL": "https://upres.intranet/enlarge"}
    for url in function(local, tmp_path_factory.mktemp("function"), **changed):
        assert post_job(url, None, Origin="https://upres.intranet").status_code == 202
        assert post_job(url, None, Origin="https://upres.intranet.evil.example").status_code == 403


POSTS = """<!doctype html><title>evil</title><link rel="icon" href="data:,"><script type="module">
const answer = await fetch("{url}/v1/jobs", {{ method: "POST", mode: "no-cors", body: '{{"image_url": "{image}"}}' }});
document.title = answer.type;
</script>"""


def test_a_browser_submits_nothing_for_a_page_of_another_site(visit: Visit, opened: str, redis: Redis) -> None:
    """A real browser says where a request comes from, also without a preflight."""
    html = POSTS.format(url=opened, image="https://example.org/a.png").encode()
    waiting = redis.llen(keys.WAITING)
    with http_server(body(html, headers={"Content-Type": "text/html"})) as elsewhere:
        visit.page.goto(elsewhere)
        visit.page.wait_for_function("document.title === 'opaque'")
    assert redis.llen(keys.WAITING) == waiting
    visit.wrong = []  # the browser's message about the refusal
